"""Lines and files of text as ids."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from autotune.data.datasets import texts
from autotune.data.datasets.text_lines import index_lines
from autotune.data.datasets.texts import TextDataset
from autotune.data.facts import dataset_facts, describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.modes import LoadingMode
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.loaders.collating import CustomCollateFn

LINES = ["to be", "", "or not to be", "ä€😀", "x" * 700]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for name, words in {"play/one.txt": "a\nb", "prose/two.md": "cd", "prose/deep/three.txt": "e" * 9}.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words)
    (tmp_path / "texts" / "play" / "cover.jpg").write_bytes(b"\xff\xd8")
    return tmp_path / "texts"


def words(text):
    return [len(word) for word in text.split()]


def as_mapping(text):
    return {"input_ids": np.array(words(text)), "attention_mask": [1]}


def as_tensor(text):
    return torch.tensor(words(text))


def text_of(ids):
    return "".join(chr(one) for one in ids.tolist() if one)


def test_lines_are_cut_and_padded_by_their_characters(file):
    dataset = TextDataset(file)
    assert len(dataset) == 4
    assert describe_sample(dataset[0]) == "(int64[512], int64[])" == dataset_facts(dataset).structure
    assert [text_of(dataset[index][0]) for index in range(4)] == ["to be", "or not to be", "ä€😀", "x" * 512]
    assert [dataset.length_of(index) for index in range(4)] == [5, 12, 3, 512]
    assert [dataset.line_of(index) for index in range(4)] == [1, 3, 4, 5]
    assert int(dataset[2][1]) == 0


def test_blank_lines_count_where_they_are_asked_for(file):
    dataset = TextDataset(file, blank_lines=True, max_length=5)
    assert [text_of(dataset[index][0]) for index in range(5)] == ["to be", "", "or no", "ä€😀", "xxxxx"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_ends_of_lines_are_no_part_of_texts(tmp_path, ending, last):
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeffone" + ending + ending + "two" + ending + last).encode())
    dataset = TextDataset(path, max_length=9)
    assert [text_of(dataset[index][0]) for index in range(len(dataset))] == ["one", "two", *([last] if last else [])]


def test_folder_gives_files_with_their_class(folder):
    dataset = TextDataset(folder, max_length=6)
    assert [text_of(dataset[index][0]) for index in range(3)] == ["a\nb", "eeeeee", "cd"]
    assert [int(dataset[index][1]) for index in range(3)] == [0, 1, 1]
    assert dataset.classes == ("play", "prose")
    lines = TextDataset(folder, unit="line")
    assert [text_of(lines[index][0]) for index in range(len(lines))] == ["a", "b", "e" * 9, "cd"]
    assert [int(lines[index][1]) for index in range(len(lines))] == [0, 0, 1, 1]
    assert len(TextDataset(folder / "play" / "one.txt", unit="file")) == 1
    assert len(TextDataset(folder, suffixes=(".md",))) == 1


def test_text_beside_class_folders_is_refused_with_a_way_out(folder):
    (folder / "README.md").write_text("about these texts")
    with pytest.raises(DatasetError, match=r"README\.md beside the folder play; move it, or choose by suffixes="):
        TextDataset(folder)
    dataset = TextDataset(folder, suffixes=(".txt",))
    assert [int(dataset[index][1]) for index in range(2)] == [0, 1]


def test_hidden_texts_are_left_out(folder):
    (folder / "play" / "._one.txt").write_bytes(b"\xff")
    (folder / ".notes").mkdir()
    (folder / ".notes" / "four.txt").write_text("f")
    assert len(TextDataset(folder)) == 3


@pytest.mark.fault(12)
def test_text_that_became_shorter_is_told(file):
    dataset = TextDataset(file)
    with file.open("r+b") as opened:
        opened.truncate(3)
    with pytest.raises(SampleError, match=r"lines\.txt.*became shorter"):
        dataset[0]


def test_files_are_found_from_another_folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = TextDataset(file.name)
    monkeypatch.chdir("/")
    assert text_of(dataset[0][0]) == "to be"
    assert dataset.path_of(0) == str(file)


@pytest.mark.parametrize("tokenizer", [words, as_mapping, as_tensor])
def test_own_tokenizer_gives_the_ids(file, tokenizer):
    dataset = TextDataset(file, tokenizer, 3, padding_id=-1, with_lengths=True)
    ids, target, length = dataset[0]
    assert (ids.tolist(), int(target), int(length)) == ([2, 2, -1], 0, 2)
    assert dataset[1][0].tolist() == [2, 3, 2]
    assert int(dataset[1][2]) == dataset.length_of(1) == 3
    assert dataset.sample_structure() == describe_sample(dataset[0])


def test_texts_keep_their_length_without_padding(file):
    dataset = TextDataset(file, max_length=8, padding=False)
    assert [len(dataset[index][0]) for index in range(4)] == [5, 8, 3, 8]
    assert dataset.sample_structure() is None
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=CustomCollateFn.padded_collate)))
    assert (batch[0].shape, batch[2].tolist()) == ((4, 8), [5, 8, 3, 8])


def test_tokenizer_that_finds_nothing_gives_padding_alone(file):
    dataset = TextDataset(file, lambda _: [], 4, with_lengths=True)
    assert dataset[0][0].tolist() == [0] * 4
    assert int(dataset[0][2]) == 0


@pytest.mark.parametrize(
    "wrong",
    [lambda _: [0.5], lambda _: [[1, 2]], str.split, str.upper, lambda _: [[1], [2, 3]], lambda _: 7, lambda _: None],
)
def test_tokenizer_that_gives_no_ids_is_told_with_the_file(file, wrong):
    for read in (TextDataset(file, wrong).__getitem__, TextDataset(file, wrong).length_of):
        with pytest.raises(SampleError, match=r"lines\.txt.*whole numbers"):
            read(0)


@pytest.mark.fault(12)
def test_text_that_is_not_utf8_names_file_and_line(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\n\nbad \xff\ngood\n")
    with pytest.raises(SampleError, match=r"bad\.txt: line 3 is not UTF-8.*0xff"):
        TextDataset(path)[1]
    with pytest.raises(SampleError, match=r"bad\.txt: line 3 is not UTF-8"):
        TextDataset(path, unit="file")[0]
    with pytest.raises(SampleError, match=r"bad\.txt: line 3 is not UTF-8"):
        TextDataset(path).length_of(1)
    left = TextDataset(path, max_length=4, on_broken="skip")
    assert len(next(iter(DataLoader(left, batch_size=3)))[0]) == 2
    assert left.broken_files == (str(path),)
    replaced = TextDataset(path, max_length=4, on_broken="substitute")
    assert samples_equal(replaced[1], replaced[2])


@pytest.mark.fault(12)
def test_byte_that_is_not_utf8_is_named_behind_a_mark_of_byte_order(tmp_path):
    path = tmp_path / "marked.txt"
    path.write_bytes(b"\xef\xbb\xbfab\n\nc\xfe")
    with pytest.raises(SampleError, match=r"line 3 is not UTF-8.*0xfe"):
        TextDataset(path, unit="file")[0]


@pytest.mark.fault(12)
def test_text_that_is_gone_or_too_large_is_told(file, monkeypatch):
    dataset = TextDataset(file, unit="file")
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 100)
    with pytest.raises(SampleError, match="unit='line'"):
        dataset[0]
    lines = TextDataset(file)
    file.unlink()
    with pytest.raises(SampleError, match=r"cannot be read.*lines\.txt"):
        lines[0]


def test_nothing_to_read_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    for path in (tmp_path / "empty.txt", tmp_path / "gone.txt", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(DatasetError):
            TextDataset(path)


@pytest.mark.parametrize("settings", [{"max_length": 0}, {"tokenizer": "bert"}, {"unit": "word"}, {"max_length": True}])
def test_settings_that_break_a_rule_are_refused(file, settings):
    with pytest.raises(SpecError):
        TextDataset(file, **settings)


@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
def test_modes_give_the_same_texts(file, mode):
    dataset, lazy = TextDataset(file, loading_mode=LoadingMode(mode)), TextDataset(file)
    for _ in range(2):
        batches = list(DataLoader(dataset, batch_size=2, num_workers=1))
        assert samples_equal(batches, list(DataLoader(lazy, batch_size=2)))
    streamed = TextDataset(file, loading_mode="streaming").loaded()
    assert samples_equal(list(streamed), [lazy[index] for index in range(4)])


def test_dataset_can_be_sent_and_recognised(file):
    dataset = TextDataset(file, words, 8)
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[1], dataset[1])
    assert source_fingerprint(dataset) == source_fingerprint(TextDataset(file, words, 8, "cached"))
    others = [TextDataset(file, words, 9), TextDataset(file, None, 8), TextDataset(file, words, 8, blank_lines=True)]
    assert source_fingerprint(dataset) not in {source_fingerprint(other) for other in others}


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=9), max_size=9))
def test_every_line_comes_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes("\n".join(lines).encode())
    index = index_lines([path], blank_lines=True)
    data = path.read_bytes()
    found = [data[start : start + size].decode() for _, start, size, _ in map(index.extent, range(len(index)))]
    assert "".join(found) == "\n".join(lines)
    assert len(found) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def test_real_texts_all_load(real_data):
    dataset = TextDataset(real_data / "text")
    assert [path.rpartition("/")[2] for path in map(dataset.path_of, range(2))] == ["botchan.txt", "input.txt"]
    assert [int(dataset[index][1]) for index in range(2)] == [0, 1]
    lines = TextDataset(real_data / "text", unit="line", max_length=64)
    batches = list(DataLoader(lines, batch_size=2048))
    assert sum(len(ids) for ids, _ in batches) == len(lines) > 30_000
    play = TextDataset(real_data / "text" / "tinyshakespeare" / "input.txt")
    assert text_of(play[0][0]) == "First Citizen:"
