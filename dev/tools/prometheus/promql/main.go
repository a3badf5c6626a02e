// Command promql reads a JSON array of PromQL expressions from standard input, parses them as Prometheus does, and
// writes what each of them asks for: a JSON array of objects in the same order. An expression that is none ends it with
// the parser's own words.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

type asked struct {
	Selectors []selector `json:"selectors"`
	Uses      []use      `json:"uses"`
}

// A selector is a metric, and the labels that it is chosen by.
type selector struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels"`
}

// A use is a set of labels by which series of the metrics are grouped or matched.
type use struct {
	Labels  []string `json:"labels"`
	Metrics []string `json:"metrics"`
}

func main() {
	var expressions []string
	if err := json.NewDecoder(os.Stdin).Decode(&expressions); err != nil {
		fail(err)
	}
	found := make([]asked, 0, len(expressions))
	for _, expression := range expressions {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		if err != nil {
			fail(fmt.Errorf("%s: %w", expression, err))
		}
		found = append(found, asked{selectors(parsed), uses(parsed)})
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

func selectors(expression parser.Node) []selector {
	found := []selector{}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if each, ok := node.(*parser.VectorSelector); ok {
			found = append(found, selectorOf(each))
		}
		return nil
	})
	return found
}

func selectorOf(each *parser.VectorSelector) selector {
	result := selector{Metric: each.Name, Labels: []string{}}
	for _, matcher := range each.LabelMatchers {
		if matcher.Name != labels.MetricName {
			result.Labels = append(result.Labels, matcher.Name)
		} else if matcher.Type == labels.MatchEqual {
			result.Metric = matcher.Value
		}
	}
	return result
}

func uses(expression parser.Node) []use {
	found := []use{}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		var names []string
		switch each := node.(type) {
		case *parser.AggregateExpr:
			names = each.Grouping
		case *parser.BinaryExpr:
			if each.VectorMatching != nil {
				names = slices.Concat(each.VectorMatching.MatchingLabels, each.VectorMatching.Include)
			}
		}
		if len(names) > 0 {
			found = append(found, use{Labels: names, Metrics: metrics(node)})
		}
		return nil
	})
	return found
}

func metrics(expression parser.Node) []string {
	found := []string{}
	for _, each := range selectors(expression) {
		found = append(found, each.Metric)
	}
	return found
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "promql:", err)
	os.Exit(1)
}
