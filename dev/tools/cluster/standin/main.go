// Command standin is the only program of the test cluster's own image. It is static, so the image has no other file.
//
//	standin pause                        does nothing until it is ended: a pod's sandbox
//	standin serve --model DIR            stands in for an inference engine
//	standin get URL                      what an HTTP server answers
//	standin lookup NAME                  the addresses of a name, one per line
//
// In an image it may lie in the place of an engine's program. Called by another name it serves, and takes that
// program's arguments.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const patience = 10 * time.Second

func main() {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	arguments := append(os.Args[1:], "", "")
	var err error
	if filepath.Base(os.Args[0]) != "standin" {
		arguments = append([]string{"serve"}, arguments...)
	}
	switch arguments[0] {
	case "pause":
		<-ended.Done()
	case "serve":
		err = serve(ended, arguments[1:len(arguments)-2])
	case "get":
		err = get(arguments[1])
	case "lookup":
		err = lookup(arguments[1])
	default:
		err = fmt.Errorf("usage: standin pause | serve --model DIR | get URL | lookup NAME")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// serve answers on port 8080: /health, /whoami (the pod's name), /digests (sha256 of every file by its path), a chat
// completion that says which pod it is from, and the files. Other flags are accepted, because BackendRuntimes pass
// those of their engines.
func serve(ended context.Context, arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	model := flags.String("model", "", "directory of the model, or its only file")
	short := flags.String("m", "", "the same for llama.cpp; for Python a module")
	port := flags.String("port", "8080", "where to listen")
	flags.String("host", "", "ignored")
	flags.String("served-model-name", "", "ignored")
	flags.Bool("metrics", false, "ignored")
	flags.Bool("fa", false, "ignored")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *model == "" {
		model = short
	}
	if _, err := os.Stat(*model); err != nil {
		return fmt.Errorf("an engine without its model does not start: %w", err)
	}
	name, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("/digests", func(w http.ResponseWriter, _ *http.Request) {
		found, err := digests(*model)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(found)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, _ *http.Request) {
		message := map[string]string{"role": "assistant", "content": "Somebody stands in for an engine in " + name + "."}
		json.NewEncoder(w).Encode(map[string]any{"choices": []any{map[string]any{"message": message}}})
	})
	mux.Handle("/", http.FileServer(http.Dir(*model)))
	server := &http.Server{Addr: ":" + *port, Handler: mux}
	go func() {
		<-ended.Done()
		server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// digests follows links, for a model's files may be links into the node's copy. Names that begin with a dot are not the
// model's: the loader's marker, a cache.
func digests(root string) (map[string]string, error) {
	found := map[string]string{}
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return found, add(found, filepath.Dir(root), root, info)
	}
	var walk func(string) error
	walk = func(directory string) error {
		entries, err := os.ReadDir(directory)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			path := filepath.Join(directory, entry.Name())
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if info.IsDir() {
				if strings.HasPrefix(entry.Name(), ".") {
					continue
				}
				if err := walk(path); err != nil {
					return err
				}
				continue
			}
			if err := add(found, root, path, info); err != nil {
				return err
			}
		}
		return nil
	}
	return found, walk(root)
}

func add(found map[string]string, root, path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	found[name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func get(url string) error {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}

func lookup(name string) error {
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(limited, name)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return err
}
