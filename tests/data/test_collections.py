"""Where a collection's files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nrccr.data.collections import SPLITS, SplitFiles, find_backbone, locate
from nrccr.errors import UserError


def complaint(action: Callable[[], object]) -> str:
    """The one line of the UserError that the action must raise."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_vatex(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    collection = locate(root, "vatex")
    text = root / "vatex" / "TextData"
    assert (collection.name, collection.folder) == ("vatex", root / "vatex")
    assert collection.features == root / "vatex" / "FeatureData" / "i3d_kinetics"
    assert collection.split("train") == SplitFiles(
        source=text / "vatextrain.caption.txt",
        target=text / "vatextrain_google_enc2zh.caption.txt",
        back=text / "vatextrain_google_enc2zh2enc.caption.txt",
    )
    for split in ("val", "test"):
        source, target = f"vatex{split}_google_zh2enc.caption.txt", f"vatex{split}_zh.caption.txt"
        assert collection.split(split) == SplitFiles(source=text / source, target=text / target, back=None)
    assert locate(root, "vatex", feature="other").features == root / "vatex" / "FeatureData" / "other"


@pytest.mark.parametrize("asked", ["msrvttcn", "msrvtt10kcn"])
@pytest.mark.parametrize("folder", ["msrvttcn", "msrvtt10kcn"])
@pytest.mark.parametrize("prefix", ["msrvttcn", "msrvtt10kcn"])
def test_msrvttcn_under_both_names(make_collection: Callable[..., Path], asked: str, folder: str, prefix: str) -> None:
    root = make_collection(folder, prefix)
    collection = locate(root, asked)
    assert (collection.name, collection.folder) == ("msrvttcn", root / folder)
    assert collection.features == root / folder / "FeatureData" / "resnext101-resnet152"
    files = collection.split("test")
    assert files.source.name == f"{prefix}test_google_zh2enc.caption.txt" and files.source.is_file()
    assert files.target.name == f"{prefix}test_zh.caption.txt" and files.target.is_file()


def test_a_folder_of_the_asked_name_comes_first(make_collection: Callable[..., Path]) -> None:
    root = make_collection("msrvttcn")
    make_collection("msrvtt10kcn")
    assert locate(root, "msrvttcn").folder == root / "msrvttcn"
    assert locate(root, "msrvtt10kcn").folder == root / "msrvtt10kcn"
    assert locate(root, "msrvtt10kcn").split("val").target.name == "msrvtt10kcnval_zh.caption.txt"


def test_files_named_after_their_folder_come_first(make_collection: Callable[..., Path]) -> None:
    root = make_collection("msrvtt10kcn")
    (root / "msrvtt10kcn" / "TextData" / "msrvttcnval_zh.caption.txt").touch()
    for asked in ("msrvttcn", "msrvtt10kcn"):
        assert locate(root, asked).split("val").target.name == "msrvtt10kcnval_zh.caption.txt"


def test_both_spellings_of_translated_queries(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    text = root / "vatex" / "TextData"
    other = text / "vatexval_google_zhc2en.caption.txt"
    (text / "vatexval_google_zh2enc.caption.txt").rename(other)
    assert locate(root, "vatex").split("val").source == other


def test_another_translator(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    text = root / "vatex" / "TextData"
    (text / "vatextest_google_zh2enc.caption.txt").rename(text / "vatextest_baidu_zh2enc.caption.txt")
    files = locate(root, "vatex", translator="baidu").split("test")
    assert files.source.name == "vatextest_baidu_zh2enc.caption.txt"


def test_noisier_training_text(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    text = root / "vatex" / "TextData"
    noisier = text / "vatextrain_google_enc2zh2enc2zh.caption.txt"
    (text / "vatextrain_google_enc2zh.caption.txt").rename(noisier)
    collection = locate(root, "vatex", round_trips=1)
    back = text / "vatextrain_google_enc2zh2enc.caption.txt"
    assert collection.split("train") == SplitFiles(text / "vatextrain.caption.txt", noisier, back)
    assert collection.split("test") == locate(root, "vatex").split("test")
    said = complaint(lambda: locate(root, "vatex", round_trips=2).split("train"))
    assert f"{text}: no file vatextrain_google_enc2zh2enc2zh2enc2zh.caption.txt (vatex, train, target" in said


def test_a_missing_file_is_named_with_its_folder(make_collection: Callable[..., Path]) -> None:
    root = make_collection()
    text = root / "vatex" / "TextData"
    (text / "vatextrain_google_enc2zh2enc.caption.txt").unlink()
    (text / "vatexval_google_zh2enc.caption.txt").unlink()
    collection = locate(root, "vatex")
    said = complaint(lambda: collection.split("train"))
    assert said.startswith(f"{text}: no file vatextrain_google_enc2zh2enc.caption.txt (vatex, train, back captions)")
    said = complaint(lambda: collection.split("val"))
    assert "no file vatexval_google_zh2enc.caption.txt or vatexval_google_zhc2en.caption.txt (vatex, val, " in said


def test_what_is_not_there(make_collection: Callable[..., Path], tmp_path: Path) -> None:
    root = make_collection()
    said = complaint(lambda: locate(root, "flickr"))
    assert (
        said == f"{root}: no collection 'flickr' in it; give the folder of all collections as --root, and as "
        "data.collection the folder of your own or one of vatex, msrvttcn, msrvtt10kyu, generated, multi30k, mscoco"
    )
    said = complaint(lambda: locate(root, "vatex", target="de"))
    assert said == "collection 'vatex' has no target language 'de'; choose one of zh"
    assert complaint(lambda: locate(tmp_path / "no", "vatex")).startswith(f"{tmp_path / 'no'}: no such folder")
    assert complaint(lambda: locate(root, "msrvttcn")).startswith(f"{root}: no folder msrvttcn or msrvtt10kcn in it")
    said = complaint(lambda: locate(root, "vatex").split("dev"))
    assert said == "split 'dev' is unknown; choose one of train, val, test"


def test_real_files(shared: Path) -> None:
    for folder in (shared / "data" / "VisualSearch", shared / "golden" / "nrccr_video" / "VisualSearch"):
        collection = locate(folder, "vatex")
        assert collection.features.is_dir()
        for split in SPLITS:
            assert collection.split(split).source.is_file()


def test_backbone_may_lie_under_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root" / "generated" / "backbone").mkdir(parents=True)
    assert find_backbone(tmp_path / "root", "bert-base-multilingual-cased") == "bert-base-multilingual-cased"
    assert find_backbone(Path("root"), "generated/backbone") == "root/generated/backbone"
    (tmp_path / "generated" / "backbone").mkdir(parents=True)
    assert find_backbone(Path("root"), "generated/backbone") == "generated/backbone"


def names_of(root: Path, collection: str, target: str, task: int = 1) -> dict[str, str]:
    """First spelling of every caption file, without its ending."""
    found = locate(root, collection, target=target, task=task)
    return {
        f"{split} {role}": found.layout.file_names(collection, split, role, "google", target, task=task)[0][:-12]
        for split in SPLITS
        for role in found.roles(split)
    }


@pytest.fixture
def images_root(tmp_path: Path) -> Path:
    for name in ("multi30k", "mscoco"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_multi30k_names(images_root: Path) -> None:
    assert names_of(images_root, "multi30k", "de") == {
        "train source": "multi30ktrain_enc",
        "train target": "multi30ktrain_google_enc2de",
        "train back": "multi30ktrain_google_enc2de2enc",
        "val source": "multi30kval_google_de2enc_task1",
        "val target": "multi30kval_de_task1",
        "test source": "multi30ktest_google_de2enc_2016_task1",
        "test target": "multi30ktest_de_2016_task1",
    }
    french = names_of(images_root, "multi30k", "fr")
    assert (french["val target"], french["test source"]) == ("multi30kval_fr", "multi30ktest_google_fr2enc_2016")


def test_multi30k_task_2_names(images_root: Path) -> None:
    names = names_of(images_root, "multi30k", "de", 2)
    assert [names[f"train {role}"] for role in ("source", "target", "back")] == [
        "Flickr30ktrain_enc", "Flickr30ktrain_google_enc2de", "Flickr30ktrain_google_enc2de2enc"
    ]  # fmt: skip
    assert (names["val target"], names["test source"]) == ("multi30kval_de", "multi30ktest_google_de2enc_2016")


def test_mscoco_names(images_root: Path) -> None:
    names = names_of(images_root, "mscoco", "ja")
    assert (names["train back"], names["val source"]) == ("mscocotrain_google_enc2ja2enc", "mscocoval_google_ja2enc")
    assert (names["test source"], names["test target"]) == ("mscocotest_google_ja2enc_2016", "mscocotest_ja_2016")
    assert "no second task" in complaint(lambda: locate(images_root, "mscoco", target="zh", task=2))


def test_both_spellings_of_translated_queries_of_images(images_root: Path) -> None:
    text = images_root / "multi30k" / "TextData"
    text.mkdir()
    for name in ("multi30kval_google_dec2en_task1", "multi30ktest_google_dec2en_2016_task1"):
        (text / f"{name}.caption.txt").touch()
    found = locate(images_root, "multi30k", target="de")
    assert found.file("val", "source").name == "multi30kval_google_dec2en_task1.caption.txt"
    assert found.file("test", "source").name == "multi30ktest_google_dec2en_2016_task1.caption.txt"


@pytest.mark.parametrize("asked", [None, "resnet_152", "resnet152"])
@pytest.mark.parametrize("folder", ["resnet_152", "resnet152"])
@pytest.mark.parametrize("spelled", ["resnet_152", "resnet152"])
@pytest.mark.parametrize("inside", [False, True])
def test_vectors_of_images(images_root: Path, asked: str | None, folder: str, spelled: str, inside: bool) -> None:
    features = images_root / "multi30k" / "FeatureData"
    (features / folder).mkdir(parents=True)
    vectors = features / folder / f"test_2016_flickr-{spelled}-avgpool.npy"
    ids = (features / folder if inside else features) / "test_id_2016.txt"
    vectors.touch()
    ids.touch()
    assert locate(images_root, "multi30k", target="cs", feature=asked).vectors("test") == (vectors, ids)


def test_ids_of_mscoco_have_a_language(images_root: Path) -> None:
    features = images_root / "mscoco" / "FeatureData"
    (features / "resnet_152").mkdir(parents=True)
    (features / "resnet_152" / "val-resnet_152-avgpool.npy").touch()
    found = locate(images_root, "mscoco", target="ja")
    said = complaint(lambda: found.vectors("val"))
    assert f"{features}: no file ja_val_id.txt there or in resnet_152 (mscoco, val, image ids)" in said
    (features / "ja_val_id.txt").touch()
    assert found.vectors("val")[1] == features / "ja_val_id.txt"
    assert "train-resnet_152-avgpool.npy or train-resnet152-avgpool.npy" in complaint(lambda: found.vectors("train"))


def test_folders_of_pictures(images_root: Path) -> None:
    assert locate(images_root, "multi30k", target="de").pictures == images_root / "multi30k" / "flickr30k-images"
    assert locate(images_root, "mscoco", target="zh").pictures == images_root / "mscoco" / "all_pics"
    assert locate(images_root, "mscoco", target="zh", pictures="mine").pictures == Path("mine")


def test_real_images(shared: Path) -> None:
    for target in ("de", "fr", "cs"):
        collection = locate(shared / "data" / "VisualSearch", "multi30k", target=target)
        for split in SPLITS:
            assert collection.split(split).source.is_file() and collection.vectors(split)[0].is_file()
