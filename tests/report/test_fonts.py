import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image

from twinray.records import Boxes
from twinray.report import fonts
from twinray.report.fonts import DEJAVU, all_letters, columns, font_file
from twinray.report.pictures.burn_in import burn_in
from twinray.report.pictures.panels import as_png

STIX = DEJAVU.with_name("STIXGeneral.ttf")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """A machine with the given fonts."""

    def install(*paths: Path) -> None:
        monkeypatch.setattr(fonts, "_installed", lambda: paths)
        fonts._fonts_with.cache_clear()

    yield install
    fonts._fonts_with.cache_clear()


def picture(text: str) -> bytes:
    sheet = Figure(figsize=(2, 1))
    sheet.text(0.1, 0.4, text, fontsize=30)
    return as_png(sheet)


def test_usual_letters_never_ask_for_other_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: pytest.fail("looked for fonts"))
    sheet = Figure()
    sheet.text(0, 0, "Épanchement pleural, Плеврит 0.83")
    with all_letters(sheet):
        assert sheet.texts[0].get_fontfamily() == ["sans-serif"]
    assert font_file("Plèvre") == DEJAVU


def test_letters_come_from_a_font_that_has_them(only, capfd: pytest.CaptureFixture[str]) -> None:
    rare = next(
        chr(c)
        for c in FT2Font(str(STIX)).get_charmap()
        if c > 0x1D00 and c not in FT2Font(str(DEJAVU)).get_charmap()
    )
    only()
    boxes = picture(rare)
    assert "no installed font has the letters" in capfd.readouterr().err
    only(STIX)
    assert picture(rare) != boxes
    assert font_file(f"a {rare}") == STIX
    assert capfd.readouterr().err == ""


def test_what_no_font_has_is_said_once_in_one_line(only, capfd: pytest.CaptureFixture[str]) -> None:
    only(STIX)
    picture("\U0010fffd")
    picture("\U0010fffd")
    assert capfd.readouterr().err.count("\n") == 1


def test_a_file_that_is_no_font_is_passed_over(only, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.ttf").write_bytes(b"no font")
    only(broken, STIX)
    assert font_file("肺炎") == DEJAVU


def test_wide_letters_count_twice() -> None:
    assert columns("肺炎 0.83") == 9
    assert columns("Nodule") == 6


@pytest.mark.skipif(
    not any("CJK" in path or "wqy" in path for path in findSystemFonts()),
    reason="no Chinese font is installed",
)
def test_chinese_names_are_burnt_in_as_letters(capfd: pytest.CaptureFixture[str]) -> None:
    boxes = Boxes(np.array([[20.0, 60, 120, 150]]), np.zeros(1, dtype=np.int64), np.array([0.8]))
    one, _ = burn_in(np.zeros((200, 200), np.uint8), boxes, ["肺炎"], ["research software"])
    other, _ = burn_in(np.zeros((200, 200), np.uint8), boxes, ["结节"], ["research software"])
    assert (one != other).any()
    Image.fromarray(one).save(io.BytesIO(), "png")
    assert "no installed font" not in capfd.readouterr().err


def test_a_font_is_made_known_once(only, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws thousands of pictures does not read a large font for each."""
    rare = next(
        chr(c)
        for c in FT2Font(str(STIX)).get_charmap()
        if c > 0x1D00 and c not in FT2Font(str(DEJAVU)).get_charmap()
    )
    only(STIX)
    picture(rare)
    monkeypatch.setattr(
        fonts.font_manager.fontManager, "addfont", lambda path: pytest.fail("read again")
    )
    picture(rare)
