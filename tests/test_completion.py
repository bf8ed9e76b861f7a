"""Shell completion: the script is one that the shell takes, and it completes verbs, options, values and paths."""

import shutil
import subprocess

import pytest

from twinray.completion import SHELLS, completion_script
from twinray.verbs import VERBS


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """``bash(words)``: what a tab behind the last word gives."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = tmp_path_factory.mktemp("completion") / "twinray.bash"
    script.write_text(completion_script("bash"))

    def complete(*words, cwd=None):
        quoted = " ".join(f"'{word}'" for word in ("twinray", *words))
        # the function that the script names, called as the shell does
        code = (
            f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; "
            'f=$(complete -p twinray | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $f twinray; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", code], capture_output=True, text=True, check=True, cwd=cwd
        )
        return set(done.stdout.split())

    return complete


def test_verbs_options_values_and_files_are_completed(bash, tmp_path):
    assert bash("") >= set(VERBS)
    assert bash("ex") == {"explain", "export"}
    assert {"--data", "--out", "--init", "--config"} <= bash("detect", "--")
    assert bash("detect", "--prot") == {"--protocol"}
    assert bash("classify", "--policy", "") >= {"probe", "head", "surgical", "full"}
    assert bash("evaluate", "--split", "t") == {"test", "train"}
    (tmp_path / "mypack").mkdir()
    assert bash("pretrain", "--data", "my", cwd=tmp_path) == {"mypack"}
    assert bash("--completion", "") >= set(SHELLS)
    assert "--faithfulness" not in bash("explain", "--")  # goes with the next version


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_line_prints_a_script_that_the_shell_can_read(cli, shell, tmp_path):
    status, out, err = cli("--completion", shell)
    assert (status, err) == (0, "")
    for verb in VERBS:
        assert verb in out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(out)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_refused_in_one_line(cli):
    for more in ((), ("tcl",), ("bash", "zsh")):
        status, _, err = cli("--completion", *more)
        assert status == 2
        assert err.startswith("twinray: expected --completion to be one of bash, zsh, fish, got")
