"""Image files: one rule for colours and orientation, whatever decodes them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Subset

from autotune.data.archives.store import open_or_build
from autotune.data.datasets import file_reading, image_decoders
from autotune.data.datasets.factories import image_folder
from autotune.data.datasets.image_decoders import DECODERS, MAX_PIXELS
from autotune.data.datasets.images import ImageFilesDataset
from autotune.data.factory import build_dataset
from autotune.data.facts import dataset_facts, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.errors import DatasetError, MissingExtraError, SampleError, SpecError
from autotune.spec import DatasetSource, LoaderConfig, MachineFacts

MACHINE = MachineFacts(host="here", system="Linux x86_64", cpu_count=2, memory_bytes=2**34)
PETS = Path(__file__).parents[3] / "../shared/data/images/pets"
EXACT = ("pil", "simplejpeg", "cv2")
ALL = tuple(DECODERS)


def photograph(height=48, width=64, seed=0):
    """Draw something smooth, as photographs are."""
    rows, columns = np.mgrid[:height, :width] / 16
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(rows / 2 + phase[0]), np.cos(columns / 2 + phase[1]), np.sin((rows + columns) / 4 + phase[2])]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_jpeg(path, pixels, *, orientation=None, mode="RGB", **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(path, "JPEG", exif=exif, **{"quality": 90, **options})
    return path


def all_equal(paths, size=None, names=EXACT):
    dataset = ImageFilesDataset(paths, size=size)
    for name, index in ((name, index) for name in names for index in range(len(dataset))):
        assert samples_equal(dataset.with_decoder(name)[index], dataset[index]), (name, paths[index])
    return dataset


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    orientation=st.sampled_from([None, *range(10)]),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.fixed_dictionaries(
        {"progressive": st.booleans(), "subsampling": st.sampled_from([0, 1, 2]), "quality": st.sampled_from([30, 95])}
    ),
    size=st.sampled_from([None, (20, 31), (7, 5), (100, 100)]),
)
def test_exact_decoders_give_the_same_bits_of_every_jpeg(tmp_path, *, sides, orientation, mode, options, size):
    path = write_jpeg(tmp_path / "a.jpg", photograph(*sides), orientation=orientation, mode=mode, **options)
    image, label = all_equal([path], size)[0]
    turned = sides[::-1] if orientation in (5, 6, 7, 8) else sides
    assert (image.dtype, tuple(image.shape), label) == (torch.uint8, (3, *(size or turned)), 0)
    assert image.is_contiguous()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_decoder_turns_images_upright(tmp_path, name, orientation):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = 200, 30, 40
    lying = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    path = write_jpeg(tmp_path / "a.jpg", np.ascontiguousarray(lying), orientation=orientation, quality=100)
    for size in (None, (16, 24)) if DECODERS[name].exact else ((16, 24),):
        image, _ = ImageFilesDataset([path], size=size, decoder=name)[0]
        height, width = size or (32, 48)
        assert image.shape == (3, height, width)
        corner = image[:, : height // 2 - 2, : width // 2 - 2].float().mean(dim=(1, 2))
        assert torch.allclose(corner, torch.tensor([200.0, 30, 40]), atol=8)
        assert image[:, height // 2 + 2 :].float().mean() < 8


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_other_formats_are_turned_once(tmp_path, suffix):
    pixels = np.zeros((8, 4, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(
        tmp_path / f"a.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {})
    )
    image, _ = all_equal([tmp_path / f"a.{suffix}"])[0]
    assert image.shape == (3, 4, 8)
    assert (image[:, :, -1] == 255).all()
    assert (image[:, :, :-1] == 0).all()


@pytest.mark.parametrize("name", ["pil_draft", "simplejpeg_scaled", "cv2_scaled"])
def test_scaled_decoding_is_close_and_no_smaller_than_wanted(tmp_path, name):
    path = write_jpeg(tmp_path / "a.jpg", photograph(400, 640), quality=95)
    for size in ((50, 80), (51, 81), (100, 100), (400, 640), (500, 700)):
        dataset = ImageFilesDataset([path], size=size)
        image, _ = dataset.with_decoder(name)[0]
        assert image.shape == (3, *size)
        assert (image.float() - dataset[0][0].float()).abs().mean() < 4


def test_scaled_decoding_is_another_result_and_known_as_that(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", photograph(400, 640))
    dataset = ImageFilesDataset([path], size=(50, 80))
    assert not samples_equal(dataset.with_decoder("cv2_scaled")[0], dataset[0])
    assert dataset.decoders == ALL
    assert dataset.exact_decoders == EXACT
    found = inspect_dataset(dataset, MACHINE)
    assert (found.decoders, found.exact_decoders) == (ALL, EXACT)
    assert ImageFilesDataset([path]).decoders == EXACT
    with pytest.raises(SpecError, match="pil, simplejpeg, cv2"):
        ImageFilesDataset([path]).with_decoder("pil_draft")
    own = ImageFilesDataset([path], size=50, decoder="pil_draft")
    assert (own.decoders[0], own.exact_decoders) == ("pil_draft", ("pil_draft",))
    faster = ImageFilesDataset([path], decoder="cv2")
    assert (faster.decoders, faster.exact_decoders) == (("cv2", "pil", "simplejpeg"),) * 2


def test_colours_of_every_kind_of_file_become_rgb(tmp_path):
    red, grey = (200, 10, 30), 77
    files = {
        "rgb.png": (Image.new("RGB", (3, 2), red), red),
        "rgba.png": (Image.new("RGBA", (3, 2), (*red, 0)), red),
        "grey.png": (Image.new("L", (3, 2), grey), (grey,) * 3),
        "grey alpha.png": (Image.new("LA", (3, 2), (grey, 9)), (grey,) * 3),
        "bits.png": (Image.new("1", (3, 2), 1), (255,) * 3),
        "16 bits.png": (Image.fromarray(np.full((2, 3), 40_000, np.uint16)), (40_000 >> 8,) * 3),
        "16 bits.tif": (Image.fromarray(np.full((2, 3), 513, np.uint16)), (2,) * 3),
        "rgb.bmp": (Image.new("RGB", (3, 2), red), red),
        "cmyk.tif": (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), (255, 0, 0)),
    }
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, *red])
    files["palette.png"] = palette, red
    files["palette.gif"] = palette, red
    for name, (image, _) in files.items():
        image.save(tmp_path / name)
    palette.save(tmp_path / "clear.png", transparency=bytes([0, 120]))
    files["clear.png"] = palette, red
    dataset = all_equal([tmp_path / name for name in files])
    for index, (name, (_, expected)) in enumerate(files.items()):
        image, _ = dataset[index]
        assert image.shape == (3, 2, 3), name
        assert (image == torch.tensor(expected)[:, None, None]).all(), name


@pytest.mark.fault
def test_first_frame_of_several_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image, _ = all_equal([tmp_path / "a.gif"])[0]
    assert image[:, 0, 0].tolist() == [255, 0, 0]


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def jpeg_claiming(data, width, height):
    start = next(at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


@pytest.mark.fault(12)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_whole_image_is_an_error_with_its_path(tmp_path, name):
    buffer = io.BytesIO()
    write_jpeg(buffer, photograph())
    jpeg = buffer.getvalue()
    wide = tmp_path / "wide.tif"
    Image.new("F", (4, 4)).save(wide)
    damaged = {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "head.jpg": jpeg[:30],
        "bomb.png": png_claiming(100_000, 100_000),
        "limit.png": png_claiming(10_000, 10_000),
        "bomb.jpg": jpeg_claiming(jpeg, 65_000, 65_000),
        "limit.jpg": jpeg_claiming(jpeg, 10_000, 10_000),
        "few rows.png": png_claiming(64, 64),
        "wide.tif": wide.read_bytes(),
    }
    for file, data in damaged.items():
        path = tmp_path / file
        path.write_bytes(data)
        with pytest.raises(SampleError) as caught:
            ImageFilesDataset([path], size=20, decoder=name)[0]
        assert caught.value.path == str(path), file
        if file.startswith(("bomb", "limit")):
            assert "pixels" in caught.value.message
    with pytest.raises(SampleError, match=r"gone\.jpg"):
        ImageFilesDataset([tmp_path / "gone.jpg"], size=20, decoder=name)[0]
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


@pytest.mark.fault(26)
def test_file_too_large_to_be_an_image_is_not_read(tmp_path):
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(file_reading.MAX_FILE_BYTES + 1)
    with pytest.raises(SampleError, match=r"a\.jpg: the file has .* at most"):
        ImageFilesDataset([path])[0]


def test_damage_inside_is_judged_alike(tmp_path):
    whole = write_jpeg(tmp_path / "a.jpg", photograph()).read_bytes()
    for number, place in enumerate(range(len(whole) // 2, len(whole) - 2, len(whole) // 16)):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        results = []
        for name in EXACT:
            try:
                results.append(ImageFilesDataset([path], decoder=name)[0])
            except SampleError as error:
                results.append(error.message)
        assert all(samples_equal(results[0], other) for other in results[1:]), number
    (tmp_path / "longer.jpg").write_bytes(whole + b"trailing")
    all_equal([tmp_path / "longer.jpg"])


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        inside = tmp_path / "pets" / ("dog" if number % 2 else "cat") / ("deep" if number == 5 else "")
        inside.mkdir(parents=True, exist_ok=True)
        write_jpeg(inside / f"{number}.JPG", photograph(40 + number, 50, number))
    (tmp_path / "pets/cat/notes.txt").write_text("no image")
    return tmp_path / "pets"


def test_folder_gives_labels_by_the_names_of_its_folders(folder, tmp_path):
    dataset = ImageFilesDataset.from_folder(folder)
    assert dataset.classes == ("cat", "dog")
    assert [dataset[index][1] for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [Path(dataset.path_of(index)).name for index in range(6)] == [f"{n}.JPG" for n in (0, 2, 4, 1, 3, 5)]
    flat = ImageFilesDataset.from_folder(folder / "cat")
    assert (len(flat), flat.classes, flat[2][1]) == (3, (), 0)
    assert list(flat.source_paths()) == [str(folder / "cat" / f"{n}.JPG") for n in (0, 2, 4)]
    with pytest.raises(DatasetError, match="must exist"):
        ImageFilesDataset.from_folder(folder / "bird")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        ImageFilesDataset.from_folder(tmp_path / "empty")
    write_jpeg(folder / "beside.jpg", photograph())
    with pytest.raises(DatasetError, match=r"beside\.jpg"):
        ImageFilesDataset.from_folder(folder)


def test_study_file_names_a_folder(folder):
    source = DatasetSource(
        factory="autotune.data.datasets.factories:image_folder", arguments={"folder": str(folder), "size": [20, 30]}
    )
    dataset = build_dataset(source)
    assert dataset_facts(dataset).structure == "(uint8[3,20,30], int)"
    assert dataset_facts(dataset).declared
    assert dataset[0][0].shape == (3, 20, 30)
    assert image_folder(str(folder), size=16)[0][0].shape == (3, 16, 16)
    assert dataset_facts(image_folder(str(folder))).declared is False


def test_labels_are_one_for_each_image(folder):
    paths = list(ImageFilesDataset.from_folder(folder).source_paths())
    assert ImageFilesDataset(paths, list(range(6)))[4][1] == 4
    with pytest.raises(DatasetError, match="6 images and 2 labels"):
        ImageFilesDataset(paths, [0, 1])
    for wrong in ({"size": 0}, {"decoder": "turbo"}):
        with pytest.raises(SpecError):
            ImageFilesDataset(paths, **wrong)


def test_labels_are_whole_numbers(folder):
    paths = list(ImageFilesDataset.from_folder(folder).source_paths())
    with pytest.raises(DatasetError, match=r"whole numbers, got float64 as 0\.7"):
        ImageFilesDataset(paths, [0.7, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decoder", ["pil", "simplejpeg", "cv2"])
def test_image_of_one_pixel_is_turned(tmp_path, decoder, orientation):
    path = tmp_path / "one.jpg"
    write_jpeg(path, np.full((1, 1, 3), 128, np.uint8), orientation=orientation)
    image, _ = ImageFilesDataset([path], decoder=decoder)[0]
    assert image.shape == (3, 1, 1)


def test_fingerprint_is_one_for_equal_pixels(folder):
    dataset = ImageFilesDataset.from_folder(folder, size=20)
    digests = {name: source_fingerprint(dataset.with_decoder(name)) for name in ALL}
    assert len({digests[name] for name in EXACT}) == 1
    assert len(set(digests.values())) == 1 + len(ALL) - len(EXACT)
    assert source_fingerprint(ImageFilesDataset.from_folder(folder, size=20, decoder="cv2")) == digests["pil"]
    assert source_fingerprint(ImageFilesDataset.from_folder(folder, size=21)) != digests["pil"]
    paths = list(dataset.source_paths())
    assert source_fingerprint(ImageFilesDataset(paths, [1] * 6)) != source_fingerprint(ImageFilesDataset(paths))


@pytest.mark.parametrize("stored", ["encoded", "decoded"])
def test_archive_gives_what_the_files_give(folder, tmp_path, stored):
    dataset = ImageFilesDataset.from_folder(folder)
    config = LoaderConfig(archive="tar", stored=stored)
    opened = open_or_build(dataset, config, tmp_path / "archives").dataset
    assert all(samples_equal(opened[index], dataset[index]) for index in range(6))
    for name in EXACT:
        again = open_or_build(dataset.with_decoder(name), config, tmp_path / "archives", build=False).dataset
        assert all(samples_equal(again[index], dataset[index]) for index in range(6))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_decode_alike(folder, name, method):
    dataset = ImageFilesDataset.from_folder(folder).with_decoder(name)
    expected = [dataset[index] for index in range(6)]
    loader = DataLoader(Subset(dataset, range(6)), batch_size=None, num_workers=1, multiprocessing_context=method)
    assert all(samples_equal(tuple(one), other) for one, other in zip(loader, expected, strict=True))


def test_inspection_tells_that_sizes_vary(folder):
    assert inspect_dataset(ImageFilesDataset.from_folder(folder), MACHINE).varying
    assert not inspect_dataset(ImageFilesDataset.from_folder(folder, size=20), MACHINE).varying


def test_missing_package_is_not_offered_and_pil_is_named(folder, monkeypatch):
    dataset = ImageFilesDataset.from_folder(folder)
    monkeypatch.setattr(image_decoders, "is_installed", lambda package: package != "simplejpeg")
    assert dataset.decoders == ("pil", "cv2")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"dataloader-autotune\[images\]"):
        dataset[0]


@pytest.mark.skipif(not PETS.is_dir(), reason="no real images here")
@pytest.mark.parametrize("size", [None, (96, 96)])
def test_real_photographs_are_decoded_alike(size):
    paths = sorted(PETS.rglob("*.jpg"))[::8]
    dataset = all_equal(paths, size)
    assert {dataset[index][0].shape[0] for index in range(3)} == {3}
