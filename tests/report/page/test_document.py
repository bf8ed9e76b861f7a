from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinray.detection.config import DetectConfig
from twinray.errors import TwinrayError
from twinray.evaluation.record import ClassFigures, SplitFigures
from twinray.jobs.pack import PackConfig
from twinray.pretraining.config import PretrainConfig
from twinray.records import Boxes
from twinray.report.page.comparison import Pictured, content
from twinray.report.page.demo import (
    DemoFigures,
    Example,
    Trained,
    commands,
    describe,
    summary_table,
    wrapped,
)
from twinray.report.page.document import (
    Caution,
    Code,
    Content,
    Details,
    Facts,
    Heading,
    Key,
    Keys,
    Panels,
    Picture,
    Points,
    Section,
    Steps,
    Words,
    as_page,
    join_words,
    write_report,
)
from twinray.report.tables import Table
from twinray.report.verdict import Verdict

Make = Callable[..., Any]
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('1')</script> & \"quotes\""


class Checked(HTMLParser):
    """Fails on tags that do not nest; keeps what a page must and must not have."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_self_contained(page: str) -> Checked:
    parsed = Checked(page)
    assert "http://" not in page and "https://" not in page and "//cdn" not in page
    assert not parsed.named("script") and not parsed.named("link") and "@import" not in page
    assert all(
        (image["src"] or "").startswith("data:image/") and image["alt"]
        for image in parsed.named("img")
    )
    assert all(
        not any(name.startswith("on") for name in attributes) for _, attributes in parsed.tags
    )
    inside = {
        link["href"] for link in parsed.named("a") if not (link["href"] or "").endswith(".csv")
    }
    assert all((href or "").startswith("#") for href in inside)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and inside <= {f"#{i}" for i in ids}
    assert all(head.get("scope") for head in parsed.named("th"))
    return parsed


def test_every_block_is_escaped(figure: Make, split_figures: Make, evaluation: Make) -> None:
    table = Table(HOSTILE, (HOSTILE, HOSTILE), ((HOSTILE, HOSTILE),), HOSTILE)
    picture = Picture(b"\x89PNG", "png", HOSTILE, HOSTILE)
    blocks = (
        HOSTILE,
        Heading(HOSTILE),
        Points(((HOSTILE, HOSTILE), ("", HOSTILE))),
        Steps(((HOSTILE, HOSTILE, HOSTILE),)),
        Keys((Key(HOSTILE, HOSTILE, HOSTILE, HOSTILE),)),
        Verdict("open", HOSTILE, HOSTILE, HOSTILE),
        table,
        Words(table),
        picture,
        Panels((picture,), HOSTILE),
        Code(HOSTILE),
        Facts(((HOSTILE, HOSTILE),)),
        Caution((HOSTILE,)),
        Details(HOSTILE, (HOSTILE,)),
    )
    page = as_page(
        Content(
            HOSTILE,
            HOSTILE,
            HOSTILE,
            (Section(HOSTILE, HOSTILE, blocks, HOSTILE),),
            HOSTILE,
            (HOSTILE,),
        )
    )
    parsed = assert_self_contained(page)
    assert "".join(parsed.text).count(HOSTILE) >= 34
    assert parsed.named("html")[0]["lang"] == "en"
    one = SplitFigures(
        {"map50": figure(0.1, -0.02, 0.2)}, {HOSTILE: ClassFigures({"ap50": figure(0.1)})}
    )
    split = SplitFigures(
        {"map50": figure(0.2)}, {HOSTILE: ClassFigures({"ap50": figure(0.1)}, {"n_boxes": 99})}
    )
    result = evaluation(
        {HOSTILE: split, HOSTILE + "2": split}, {HOSTILE + "2": one}, notes=(HOSTILE,), rule=HOSTILE
    )
    assert_self_contained(as_page(content(result)))


def example(n: int) -> Example:
    image = np.random.default_rng(n).integers(0, 256, (32, 32), dtype=np.uint8)
    found = Boxes(
        np.array([[2.0, 2, 60, 60], [1, 1, 30, 30]]), np.array([2, 0]), np.array([0.8, 0.05])
    )
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    truth = (None, Boxes.empty(), Boxes(found.xyxy[:1], found.labels[:1]))[n % 3]
    heat = None if n == 1 else np.linspace(0, 1, 1024).reshape(32, 32)
    by_arm = {"random": nothing, "Barlow Twins": nothing if n == 1 else found}
    return Example(Pictured(f"image {n}", image, (0.5, 0.5), truth, by_arm), heat)


@pytest.fixture
def figures(tmp_path: Path, classes: tuple[str, ...]) -> DemoFigures:
    return DemoFigures(
        options={
            "pack": (PackConfig(format="phantom", out=Path("demo out/p"), size=64, val=0.0),),
            "pretrain": (
                PretrainConfig(data=(Path("a"), Path("b")), out=Path("pre"), projector=(8, 8)),
            ),
            "detect": (DetectConfig(data=Path("a"), out=Path("d"), epochs=3),),
        },
        seconds={"1": 1.5, "2": 120.2},
        unlabelled=32,
        pack={"images": 100, "train": 45, "val": 15, "test": 40, "patients": 50},
        environment={"twinray": "0.1.0", "python": "3.11"},
        classes=classes,
        pretrain_seconds=100.0,
        seed=0,
    )


def test_the_demo_page_tells_everything(
    tmp_path: Path,
    figures: DemoFigures,
    figure: Make,
    split_figures: Make,
    evaluation: Make,
    pretraining_lines: list[dict[str, Any]],
    detector_lines: list[dict[str, Any]],
) -> None:
    trained = [
        Trained("random", detector_lines, 2, 60.0, 31),
        Trained("Barlow Twins", detector_lines, 2, 160.0, 31),
    ]
    difference = SplitFigures({"map50": figure(0.1, -0.02, 0.2), "froc": figure(None)})
    result = evaluation(
        {"random": split_figures(), "Barlow Twins": split_figures(0.1)},
        {"Barlow Twins": difference},
    )
    page = describe(
        figures, result, trained, pretraining_lines, [example(i) for i in range(3)], "a method"
    )
    path = write_report(tmp_path / "report.html", page)
    assert path.is_absolute()
    parsed = assert_self_contained(path.read_text("utf-8"))
    text = " ".join(" ".join(parsed.text).split())
    for said in (
        "This run does not show a difference between the two arms.",
        "the interval includes 0",
        "0.200 to 0.310",
        "−0.020 to +0.200",
        "Research software, not a medical device",
        "Synthetic images.",
        "One seed.",
        "twinray detect --data labelled --out detector-pretrained --init pretrained",
        "a method",
        "The time of Barlow Twins includes its pre-training.",
        "<script>alert(1)</script>",
    ):
        assert said in text, said
    assert len(parsed.named("img")) == 2 + 3 * 3
    assert len(parsed.named("section")) == 10
    note = summary_table(result, trained, "A note.").note
    assert note == "A note."


def test_the_demo_page_stands_without_figures(figures: DemoFigures, evaluation: Make) -> None:
    nothing = SplitFigures({})
    result = evaluation({"random": nothing, "Barlow Twins": nothing}, {"Barlow Twins": nothing})
    trained = [Trained(name, [], None, None, None) for name in result.arms]
    page = as_page(describe(figures, result, trained, [], [], ""))
    assert "The two arms cannot be compared." in page and "not defined" in page
    assert_self_contained(page)


def test_commands_repeat_the_options_that_differ_from_the_defaults(figures: DemoFigures) -> None:
    lines = commands(figures.options).replace(" \\\n   ", "").splitlines()
    assert lines == [
        "twinray pack --format phantom --out 'demo out/p' --size 64 --val 0",
        "twinray pretrain --data a b --out pre --projector 8 8",
        "twinray detect --data a --out d --epochs 3",
    ]
    long = wrapped(["twinray", "x", *[w for i in range(30) for w in (f"--option-{i}", str(i))]])
    assert (
        max(map(len, long.splitlines())) <= 90 and long.count("\\\n") == len(long.splitlines()) - 1
    )


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TwinrayError, match="could not write report"):
        write_report(tmp_path / "absent" / "report.html", Content("t", "o", "l", (), "f"))


def test_words_are_joined() -> None:
    assert [join_words(w) for w in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


def test_the_summary_says_whose_figures_include_seen_images(figure: Make, evaluation: Make) -> None:
    marked = SplitFigures({"map50": figure(0.5)}, seen=(2, 3))
    table = summary_table(evaluation({"clean": SplitFigures({}), "marked": marked}), [], "A note.")
    assert (
        table.note
        == "A note. marked: includes 2 of 3 images that training had seen, or may have (--allow-seen)."
    )
    assert table.columns == ("arm", "mAP50", "95 % interval", "seconds")
    assert table.rows[1] == ("marked", "0.500", "not defined", "not defined")
