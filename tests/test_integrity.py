"""Inputs that are not what was recorded, or that could do harm, are refused by name before they are used."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.guard import integrity, params


def poisoned(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("pytorch_model.bin", b"\x80\x04", "pytorch_model.bin: a .bin file can run code"),
        ("training_args.pt", b"\x80\x04", "a .pt file can run code"),
        ("modeling_evil.py", "import os", "a .py file can run code"),
        (
            "config.json",
            '{"auto_map": {"AutoModel": "modeling_evil.Evil"}}',
            "auto_map.AutoModel = 'modeling_evil.Evil' names code",
        ),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a--b.C", null]}}', "remote code is never run"),
        ("tokenizer_config.json", '{"vocab_file": "/etc/passwd"}', "vocab_file = '/etc/passwd' names a file outside"),
        (
            "tokenizer_config.json",
            '{"tokenizer_file": "../../secret.json"}',
            "tokenizer_file = '../../secret.json' names a file outside",
        ),
    ],
)
def test_a_model_folder_that_could_do_harm_is_refused(tiny_model, tmp_path, name, content, told):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    integrity.check_safe(folder)
    with pytest.raises(ValueError, match="model") as error:
        integrity.check_safe(poisoned(folder, name, content))
    assert told in str(error.value) and "\n" not in str(error.value)


def bomb_of_rows(path: Path) -> None:
    pq.write_table(pa.table({"id": pa.repeat("a", 3_000_000)}), path)


def bomb_of_bytes(path: Path) -> None:
    pq.write_table(
        pa.table({"id": ["a" * 100_000_000]}), path, compression="zstd", use_dictionary=False, write_statistics=False
    )


@pytest.mark.parametrize(
    ("bomb", "told"), [(bomb_of_rows, "claim 3,000,000 rows"), (bomb_of_bytes, "claim 1 rows and 100,000,")]
)
def test_a_parquet_bomb_is_refused_by_its_metadata(tmp_path, bomb, told):
    bomb(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(ValueError, match=told):
        integrity.check_safe(tmp_path / "a.parquet")


def test_a_parquet_bomb_among_the_shards_of_a_folder_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"]}), tmp_path / "0.parquet")
    integrity.check_safe(tmp_path)
    bomb_of_rows(tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"/1\.parquet: .* claim 3,000,000 rows"):
        integrity.check_safe(tmp_path)


def test_a_truncated_parquet_file_is_refused_with_the_remedy(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match="is no whole parquet file"):
        integrity.check_safe(tmp_path / "a.parquet")


def test_the_project_s_own_raw_data_pass():
    for path in Path("data").rglob("*.parquet"):
        integrity.check_safe(path)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!include /etc/passwd"]
)
def test_a_params_file_with_yaml_tags_is_refused(tmp_path, tag):
    text = Path("params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seed: 1 ", f"seed: {tag} "))
    with pytest.raises(params.ParamsError, match=r"params\.yaml: ") as error:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_the_digest_is_dvcs_own(clone):
    """A file, and a folder with a folder in it, as real DVC records them."""
    (clone / "made/inner").mkdir(parents=True)
    for name in ("z.txt", "a.txt", "inner/b.txt", "inner-2.txt"):
        (clone / "made" / name).write_text(name)
    (clone / "one.txt").write_text("one")
    subprocess.run(["dvc", "add", "-q", "made", "one.txt"], cwd=clone, check=True)
    from ruamel.yaml import YAML

    for name in ("made", "one.txt"):
        wanted = YAML(typ="safe").load(clone / f"{name}.dvc")["outs"][0]["md5"]
        assert integrity.digest(clone / name) == wanted
        integrity.check_recorded(clone / name, wanted)


def test_of_a_damaged_folder_the_file_and_its_object_are_named(clone, monkeypatch):
    (clone / "made").mkdir()
    for name in ("a.txt", "b.txt"):
        (clone / "made" / name).write_text(name)
    subprocess.run(["dvc", "add", "-q", "made"], cwd=clone, check=True)
    monkeypatch.chdir(clone)
    wanted, cached = integrity.digest(Path("made")), integrity.md5(Path("made/b.txt"))
    Path("made/b.txt").write_text("other")
    with pytest.raises(
        ValueError,
        match=rf"^made/b\.txt is damaged or edited: made has md5 .*, dvc\.lock says {wanted}; run `dvc checkout",
    ) as error:
        integrity.check_recorded(Path("made"), wanted)
    assert f"`rm -rf made .dvc/cache/files/md5/{cached[:2]}/{cached[2:]}`" in str(error.value) and "\n" not in str(
        error.value
    )


def test_the_guard_refuses_an_input_that_dvc_lock_does_not_know_so(clone):
    """An intermediate file edited by hand and fed to a stage by hand; `dvc repro` itself would make it anew."""
    lock = clone / "dvc.lock"
    (clone / "data/filtered").mkdir(parents=True)
    schema = pa.schema([("id", pa.string())])
    pq.write_table(pa.Table.from_pylist([{"id": "a"}], schema), clone / "data/filtered/train.parquet")
    assert "data/filtered/train.parquet" in lock.read_text()
    guard = [sys.executable, "-m", "stages.guard.run"]
    keys = "guard.fingerprint --code stages --packages requirements.lock --keys code.lock.yaml"
    subprocess.run([*guard, *keys.split()], cwd=clone, check=True)
    words = "pairs.offline --train data/filtered/train.parquet --pairs data/history/pi0.parquet"
    done = subprocess.run([*guard, *words.split()], cwd=clone, capture_output=True, text=True)
    assert (
        done.returncode == 1
        and done.stderr.startswith("pairs.offline: data/filtered/train.parquet is damaged or edited")
        and done.stderr.count("\n") == 1
    )
    assert not (clone / "data/history/pi0.parquet").exists()


def test_what_was_found_right_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("a.txt")
    file.write_text("a")
    integrity.check_once(file, integrity.md5(file), "state 1")
    wanted = integrity.md5(file)
    file.write_text("b")
    integrity.check_once(file, wanted, "state 1")  # same sizes, times and inodes: trusted
    with pytest.raises(ValueError, match="damaged"):
        integrity.check_once(file, wanted, "state 2")
