"""Groups of verbs: a package in the folder of verbs is one, and its modules are its verbs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from everymode.cli import _add_verbs

VERB = '"""A verb."""\n\n\ndef command(name: str) -> None:\n    """Say a name."""\n    print("{verb}", name)\n'
FILES = {
    "__init__.py": "",
    "sing.py": VERB.format(verb="sing"),
    "options.py": "",  # shared, no verb
    "band/__init__.py": 'SUMMARY = "Several at once."\n',
    "band/play.py": VERB.format(verb="play"),
    "band/_score.py": "",
}


@pytest.fixture
def app(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "noises" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    app = typer.Typer(no_args_is_help=True)
    _add_verbs(app, importlib.import_module("noises"))
    yield app
    for name in [name for name in sys.modules if name.partition(".")[0] == "noises"]:
        del sys.modules[name]


def test_a_module_is_a_verb_and_a_package_a_group(app):
    run = CliRunner().invoke
    assert run(app, ["sing", "Ann"]).output == "sing Ann\n"
    assert run(app, ["band", "play", "Bob"]).output == "play Bob\n"
    listed = run(app, ["--help"]).output
    assert "Several at once." in listed
    assert "options" not in listed.lower().split("commands")[1]
    assert "score" not in run(app, ["band", "--help"]).output
    assert run(app, ["band"]).exit_code == 2
    assert run(app, ["band", "sing", "Ann"]).exit_code == 2


def test_help_of_the_group_imports_nothing_heavy():
    program = (
        "import sys\nfrom everymode.cli import main\nsys.argv = ['everymode', 'policy', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(*{'torch', 'numpy', 'gymnasium', 'zarr', 'h5py', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Robot policies" in done.stdout
    assert done.stderr.strip() == ""
