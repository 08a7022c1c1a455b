"""Folders of images: every mode and turn that cameras and programs produce, and what is damaged."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.data import folder

ORIENTATION = 0x0112
# Row and column of the corner where the mark of `marked` lies as stored, if it is at the top left as shown.
STORED = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


def marked(height=48, width=64, corner=(0, 0), color=(250, 40, 30)) -> Image.Image:
    """A grey picture with a mark in one corner."""
    pixels = np.full((height, width, 3), 90, "uint8")
    rows = slice(0, height // 2) if corner[0] == 0 else slice(height // 2, None)
    columns = slice(0, width // 2) if corner[1] == 0 else slice(width // 2, None)
    pixels[rows, columns] = color
    return Image.fromarray(pixels)


def noisy(seed: int, mode="RGB", size=(40, 30)) -> Image.Image:
    shape = (*size[::-1], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")).convert(mode)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache for decoded rows, outside the folders that are read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def told(data) -> tuple[str, ...]:
    """The notes on the images themselves."""
    return tuple(note for note in data.notes if not note.startswith("decoded "))


@pytest.fixture
def photos(tmp_path):
    """A folder with four sound images of one size."""
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(4):
        noisy(i).save(root / f"{i}.png")
    return root


def test_rows_are_the_pixels_in_the_order_of_the_paths(photos):
    data = folder(path=str(photos))
    assert data.name == "photos"
    assert data.levels == 256
    assert told(data) == ()
    for i in range(4):
        assert data.x[i].equal(torch.from_numpy(np.asarray(noisy(i)).transpose(2, 0, 1).copy()))


def test_twice_the_same_and_another_seed_another_split(tmp_path):
    for i in range(40):
        noisy(i, size=(4, 4)).save(tmp_path / f"{i}.bmp")
    first = folder(path=str(tmp_path))
    assert first.fingerprint() == folder(path=str(tmp_path)).fingerprint()
    assert first.fingerprint() != folder(path=str(tmp_path), split_seed=1).fingerprint()


def test_extensions_in_capitals_and_names_in_any_script(tmp_path):
    (tmp_path / "Löwen und Bären").mkdir()
    (tmp_path / "猫").mkdir()
    for i, name in enumerate(
        ("Löwen und Bären/A b.PNG", "Löwen und Bären/c.JPG", "猫/写真.Jpeg", "猫/é.WebP", "猫/f.TIFF")
    ):
        noisy(i).save(tmp_path / name)
    data = folder(path=str(tmp_path))
    assert len(data.x) == 5
    assert data.label_names == ("Löwen und Bären", "猫")
    assert data.labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, extension, orientation):
    stored = (48, 64) if orientation < 5 else (64, 48)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for i in range(3):
        marked(*stored, corner=STORED[orientation]).save(tmp_path / f"{i}.{extension}", exif=exif, quality=95)
    for size in (None, "24x32"):
        data = folder(path=str(tmp_path), size=size)
        assert data.event[1:] == ((48, 64) if size is None else (24, 32))
        quarter = data.x[0, 0, 2 : data.event[1] // 2 - 2, 2 : data.event[2] // 2 - 2]
        assert quarter.min() > 200
        assert data.x[0, 0, data.event[1] // 2 + 2 :].max() < 130


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("color", ["rgb", "grey"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_fast_path_of_jpegs_agrees_with_pillow(tmp_path, tmp_path_factory, monkeypatch, fit, color, progressive):
    import simplejpeg

    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype="uint8"))
    for i in range(3):
        smooth.resize((400, 300 + i), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg", progressive=progressive)
    arguments = {"path": str(tmp_path), "size": "32x40", "fit": fit, "color": color}
    fast = folder(**arguments)

    def refuse(*args, **kwargs):
        raise ValueError("refused")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    slow = folder(**arguments)
    difference = (fast.x.float() - slow.x.float()).abs()
    assert difference.mean() < 1.5
    assert difference.max() < 25
    assert not fast.x.equal(slow.x)  # else the fast path was not taken


MODES = {
    "1": ("1", "png", 1),
    "L": ("L", "png", 1),
    "LA": ("LA", "png", 1),
    "P": ("P", "png", 3),
    "grey JPEG": ("L", "jpg", 1),
    "CMYK JPEG": ("CMYK", "jpg", 3),
    "RGBA, opaque": ("RGBA", "png", 3),
    "YCbCr TIFF": ("YCbCr", "tiff", 3),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(tmp_path, name):
    mode, extension, channels = MODES[name]
    picture = marked()
    for i in range(3):
        picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / f"{i}.{extension}")
    data = folder(path=str(tmp_path))
    assert data.event == (channels, 48, 64)
    assert told(data) == ()
    shown = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(48, 64, channels)
    if mode != "1":
        error = np.abs(data.x[0].permute(1, 2, 0).numpy().astype(int) - shown).mean()
        assert error < 6


def test_transparency_is_put_on_white_and_noted(tmp_path):
    clear = marked()
    clear.putalpha(Image.new("L", clear.size, 0))
    clear.save(tmp_path / "clear.png")
    palette = marked().convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    marked().save(tmp_path / "solid.png")
    data = folder(path=str(tmp_path))
    assert data.x[0].min() == 255
    assert data.x[1, :, :24, :32].min() == 255
    assert data.x[1, :, 24:].max() < 120
    assert told(data) == ("2 images have transparent parts: put on white",)


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight_and_noted(tmp_path, extension):
    wide = np.linspace(0, 65_535, 48 * 64).astype("uint16").reshape(48, 64)
    for i in range(3):
        Image.fromarray(wide).save(tmp_path / f"{i}.{extension}")
    data = folder(path=str(tmp_path))
    assert data.event == (1, 48, 64)
    assert np.abs(data.x[0, 0].numpy() - wide / 257).max() <= 0.5
    assert told(data) == ("3 images of 16 bits: scaled to 8 bits",)


@pytest.mark.parametrize(("color", "channels"), [("auto", 1), ("grey", 1), ("rgb", 3)])
def test_grey_pictures_stored_in_three_channels_are_grey(tmp_path, color, channels):
    for i in range(3):
        noisy(i, "L").convert("RGB").save(tmp_path / f"{i}.png")
    data = folder(path=str(tmp_path), color=color)
    assert data.event == (channels, 30, 40)
    assert data.x[0, 0].equal(torch.from_numpy(np.array(noisy(0, "L"))))


def test_one_colour_picture_makes_all_of_them_rgb(tmp_path):
    for i in range(3):
        noisy(i, "L").save(tmp_path / f"{i}.png")
    marked(30, 40).save(tmp_path / "9.png")
    assert folder(path=str(tmp_path)).event == (3, 30, 40)


def test_mixed_sizes_need_a_size(photos):
    noisy(7, size=(20, 50)).save(photos / "7.png")
    with pytest.raises(
        ValueError, match=r"5 images have 2 sizes, 30-50 high and 20-40 wide.*30x40 \(4\).*data.size=64"
    ):
        folder(path=str(photos))
    assert folder(path=str(photos), size=16).event == (3, 16, 16)


def test_crop_cuts_and_pad_keeps(tmp_path):
    for i in range(3):
        pixels = np.full((40, 80, 3), 200, "uint8")
        pixels[:, :8] = 100  # at the left border
        pixels[:, 40:] = 230
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    crop, pad = (folder(path=str(tmp_path), size=20, fit=fit).x[0, 0] for fit in ("crop", "pad"))
    assert crop.min() > 190
    assert pad[10, 0] < 110
    assert pad[0].max() == 0
    assert pad[19].max() == 0


def test_enlarging_is_noted(photos):
    assert told(folder(path=str(photos), size=64)) == ("4 images are smaller than 64x64: enlarged",)


def test_damaged_images_are_all_listed(photos):
    noisy(8).save(photos / "short.jpg")
    (photos / "short.jpg").write_bytes((photos / "short.jpg").read_bytes()[:-150])
    (photos / "short.png").write_bytes((photos / "0.png").read_bytes()[:-150])
    (photos / "text.jpg").write_text("<html>404</html>")
    (photos / "void.webp").touch()
    with pytest.raises(ValueError, match=r"4 of 8 images cannot be read") as error:
        folder(path=str(photos))
    for line in (
        r"short.jpg: .*truncated",
        "short.png: ",
        "text.jpg: not an image",
        "void.webp: empty file",
        "skip_bad",
    ):
        assert re.search(line, str(error.value)), line
    data = folder(path=str(photos), skip_bad=True)
    assert len(data.x) == 4
    assert told(data) == ("skipped 4 images that cannot be read",)
    for i in range(4):
        assert data.x[i].equal(torch.from_numpy(np.asarray(noisy(i)).transpose(2, 0, 1).copy()))


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("cut", [1, 20, 300])
def test_truncated_jpegs_are_found_on_the_fast_path(photos, size, cut):
    noisy(8).save(photos / "z.jpg")
    (photos / "z.jpg").write_bytes((photos / "z.jpg").read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"1 of 5 images cannot be read:\n  z.jpg: .*truncated"):
        folder(path=str(photos), size=size)


def test_many_damaged_images_are_counted(photos):
    for i in range(25):
        (photos / f"bad{i:02}.png").touch()
    with pytest.raises(ValueError, match=r"25 of 29 .*\n(  bad.*\n){10}  and 15 more\n"):
        folder(path=str(photos))


def test_all_damaged_is_an_error_whatever_is_skipped(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read"):
        folder(path=str(tmp_path), skip_bad=True)


def test_bombs_are_refused_and_large_images_are_not(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # 1,200 pixels: a warning
    assert len(folder(path=str(photos)).x) == 4
    noisy(9, size=(60, 40)).save(photos / "bomb.png")  # more than twice as many: an error
    with pytest.raises(ValueError, match=r"bomb.png: Image size \(2400 pixels\) exceeds"):
        folder(path=str(photos), size=16)


def test_the_first_of_several_frames_is_taken_and_noted(photos):
    noisy(0).save(photos / "many.tif", save_all=True, append_images=[noisy(1), noisy(2)])
    data = folder(path=str(photos))
    assert data.x[4].equal(data.x[0])
    assert told(data) == ("1 images have several frames: took the first",)


def test_hidden_files_and_others_are_passed_over(photos):
    for name in (".hidden.png", "._0.png", "__MACOSX/0.png", ".thumbnails/1.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"not an image")
    (photos / "notes.txt").touch()
    (photos / "README").touch()
    data = folder(path=str(photos))
    assert len(data.x) == 4
    assert told(data) == ("passed over 2 files that are not images (1 .txt, 1 README)",) or told(data) == (
        "passed over 2 files that are not images (1 README, 1 .txt)",
    )


def test_links_to_files_are_read_and_links_to_folders_are_not(photos, tmp_path):
    root = tmp_path / "links"
    (root / "folder.png").mkdir(parents=True)
    for i in range(3):
        (root / f"{i}.png").symlink_to(photos / f"{i}.png")
    (root / "more").symlink_to(photos)
    (root / "broken.png").symlink_to(photos / "gone.png")
    data = folder(path=str(root))
    assert len(data.x) == 3
    assert told(data) == ()


def fill(root, names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noisy(i, size=(8, 8)).save(root / name)


def test_classes_are_the_first_folders(tmp_path):
    fill(tmp_path, ["dog/a.png", "dog/deep/b.png", "cat/c.png", "cat/d.png"])
    data = folder(path=str(tmp_path))
    assert data.label_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]


def test_images_outside_the_classes_leave_no_labels(tmp_path):
    fill(tmp_path, ["dog/a.png", "dog/b.png", "cat/c.png", "top.png"])
    data = folder(path=str(tmp_path))
    assert data.labels is None
    assert told(data) == ("1 images lie outside the 2 class folders: no labels",)


def test_one_folder_is_no_class(tmp_path):
    fill(tmp_path, [f"images/{i}.png" for i in range(4)])
    assert folder(path=str(tmp_path)).labels is None


def test_folders_named_train_and_test_are_the_split(tmp_path):
    fill(tmp_path, [f"{part}/{kind}/{i}.png" for part in ("train", "test") for kind in "ab" for i in range(10)])
    data = folder(path=str(tmp_path))
    assert data.split["test"].tolist() == list(range(20))
    assert sorted([*data.split["train"], *data.split["valid"]]) == list(range(20, 40))
    assert len(data.split["valid"]) == 2
    assert data.label_names == ("a", "b")
    assert data.labels.tolist() == [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10


def test_what_is_not_a_folder_of_images(photos, tmp_path):
    with pytest.raises(ValueError, match=r"photo does not exist. Did you mean 'photos'"):
        folder(path=str(tmp_path / "photo"))
    with pytest.raises(ValueError, match=r"0.png is a file, and images are read from a folder"):
        folder(path=str(photos / "0.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no images. What is read: .png, .jpg"):
        folder(path=str(tmp_path / "empty"))
    (tmp_path / "empty" / "a.gif").touch()
    with pytest.raises(ValueError, match=r"empty holds no images, only 1 .gif"):
        folder(path=str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"size": "64*64"}, r"size='64\*64' is not a size. Give 64 for 64x64"),
        ({"size": 0}, "size=0 is not a size"),
        ({"fit": "cropped"}, "fit='cropped' is not known. Did you mean 'crop'"),
        ({"color": "gray"}, "color='gray' is not known. Did you mean 'grey'"),
    ],
)
def test_arguments_that_are_not_known(photos, bad, match):
    with pytest.raises(ValueError, match=match):
        folder(path=str(photos), **bad)


def test_a_folder_of_tables_is_told_that_a_table_is_one_file(tmp_path):
    for name in ("b.csv", "a.csv.gz", "notes.txt"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(
        ValueError, match=r"holds no images, only .* A table is one file: give it, as in .*a\.csv\.gz\."
    ):
        folder(path=str(tmp_path))
