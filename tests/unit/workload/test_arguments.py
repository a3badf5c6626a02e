import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.errors import RenderError, RenderReason
from modelswarm.workload.arguments import render_arguments

VARIABLES = {"ModelPath": "/workspace/models/models--org--name", "ModelName": "llama3-8b"}


@pytest.mark.parametrize(
    ("argument", "rendered"),
    [
        pytest.param(
            "ollama serve & ollama run {{ .ModelName }}; sleep 60",
            "ollama serve & ollama run llama3-8b; sleep 60",
            id="a long argument with a variable inside",
        ),
        pytest.param("{{ .ModelPath }}", VARIABLES["ModelPath"], id="a variable alone"),
        pytest.param("{{.ModelPath}}", VARIABLES["ModelPath"], id="no spaces"),
        pytest.param("{{   .ModelName\t}}", "llama3-8b", id="many spaces"),
        pytest.param("{{ .ModelName }}-{{ .ModelName }}", "llama3-8b-llama3-8b", id="twice"),
        pytest.param("{{ ModelPath }}", "{{ ModelPath }}", id="without the dot it is untouched"),
        pytest.param("--port", "--port", id="no variable"),
        pytest.param("{{ .Model-Path }}", "{{ .Model-Path }}", id="not a word is untouched"),
    ],
)
def test_variables_are_replaced(argument: str, rendered: str) -> None:
    assert render_arguments([argument], VARIABLES) == (rendered,)


@pytest.mark.parametrize(
    ("argument", "variable"),
    [
        pytest.param("--draft={{ .DraftModelPath }}", "DraftModelPath", id="a missing variable"),
        pytest.param("{{ .Empty }}", "Empty", id="an empty variable"),
        pytest.param("{{ .modelpath }}", "modelpath", id="case matters"),
    ],
)
def test_a_variable_without_a_value_is_an_error_that_names_it_and_the_argument(argument: str, variable: str) -> None:
    with pytest.raises(RenderError) as failed:
        render_arguments([argument], {**VARIABLES, "Empty": ""})
    assert failed.value.reason is RenderReason.BAD_TEMPLATE_VARIABLE
    assert variable in failed.value.message
    assert argument in failed.value.message
    assert "ModelName, ModelPath" in failed.value.message


@given(st.lists(st.text()), st.text(min_size=1))
def test_text_without_double_braces_is_never_changed(arguments: list[str], value: str) -> None:
    plain = [argument.replace("{{", "") for argument in arguments]
    assert render_arguments(plain, {"ModelPath": value}) == tuple(plain)


@given(st.text(), st.text(min_size=1), st.text())
def test_a_value_is_put_in_as_it_is_and_not_looked_at_again(before: str, value: str, after: str) -> None:
    before, after = before.replace("{", "").replace("}", ""), after.replace("{", "").replace("}", "")
    for text in (value, "{{ .ModelPath }}", r"\1\g<0>"):
        rendered = render_arguments([f"{before}{{{{ .ModelPath }}}}{after}"], {"ModelPath": text})
        assert rendered == (f"{before}{text}{after}",)
