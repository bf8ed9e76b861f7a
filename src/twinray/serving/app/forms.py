"""What the API takes and gives, as OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from twinray.serving.store.images import Count
from twinray.serving.store.people import NAME

State = Literal["queued", "running", "done", "failed"]
Corners = tuple[float, float, float, float]
_LARGEST = 1e6


class Form(BaseModel):
    """A body that holds what is named and nothing else."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        """Refuse what no database keeps as text: NUL, and halves of surrogate pairs."""
        if not all(map(_can_be_kept, _texts(given))):
            raise ValueError("expected text without NUL and without halves of characters")
        return given


def _texts(value: Any) -> Iterator[str]:
    left = [value]  # not by recursion: what is sent may be nested as deeply as its sender likes
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one


def _can_be_kept(text: str) -> bool:
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _checked_box(box: Corners) -> Corners:
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise ValueError("expected x0 below x1 and y0 below y1")
    if max(map(abs, box)) > _LARGEST:
        raise ValueError("expected pixels of the image")
    return box


class ImageAdded(BaseModel):
    """A file that was taken."""

    id: str
    name: str
    state: State
    known: bool = Field(description="the same bytes were here already, as this image")


class FileRefused(BaseModel):
    """A file that was not taken."""

    name: str
    reason: str


class Uploaded(BaseModel):
    """What came of an upload."""

    images: list[ImageAdded]
    refused: list[FileRefused]


class PredictedBox(BaseModel):
    """A predicted box in original pixels, right and bottom exclusive."""

    model_config = ConfigDict(populate_by_name=True)
    box: Corners
    label: str = Field(alias="class")
    score: float


class PredictedLabel(BaseModel):
    """What a classifier says of the whole image, of one class.

    ``threshold`` and ``called`` are those of the model's first rule; null where the model is no longer served, and the threshold
    also where the class of the highest score is called.
    """

    model_config = ConfigDict(populate_by_name=True)
    label: str = Field(alias="class")
    score: float
    threshold: float | None
    called: bool | None


class MarkGiven(BaseModel):
    """A box of a reading."""

    model_config = ConfigDict(populate_by_name=True)
    box: Corners
    label: str = Field(alias="class")
    verdict: Literal["accepted", "rejected", "moved", "added"]
    reader: str
    reading: str
    prediction: int | None
    model: str | None


class ModelAnswer(BaseModel):
    """How far a model is with an image."""

    model: str
    name: str
    state: State
    reason: str
    score: float | None
    boxes: int


class ImageRow(BaseModel):
    """An image of the worklist."""

    id: str
    name: str
    state: State
    reason: str
    created: str
    width: int | None
    height: int | None
    score: float | None = Field(
        description="highest score of the first model, of a classifier that of what it looks for; null without answer"
    )
    teach: float | None
    read: str | None = Field(description="time of the newest finished reading")
    patient: str | None = Field(description="pseudonym")
    acquired: str | None
    view: str | None
    kind: str
    origin: str


class ImageWhole(ImageRow):
    """An image with all that is known of it."""

    place: int | None = Field(description="images that are analysed before this one")
    model: str | None = Field(description="model of the predictions")
    models: list[ModelAnswer]
    predictions: list[PredictedBox] = Field(description="boxes of the model; a classifier has none")
    labels: list[PredictedLabel] = Field(
        description="labels of the whole image by the model, in the order of its classes; a detector has none"
    )
    marks: list[MarkGiven]


class Worklist(BaseModel):
    """A page of the worklist."""

    images: list[ImageRow]
    page: int
    pages: int
    size: int
    total: int
    counts: dict[Count, int] = Field(
        description="images that the search matches, whatever their state"
    )


class WorklistAsked(Form):
    """What is asked of the worklist."""

    state: str = Field(default="", max_length=100)
    q: str = Field(default="", max_length=200)
    page: int = Field(default=1, ge=1, le=10_000_000)
    size: int = Field(default=50, ge=1, le=200)
    order: Literal["newest", "suspicious", "active"] = "newest"
    model: str | None = Field(default=None, max_length=64)


class Prior(BaseModel):
    """An earlier image of the same patient."""

    id: str
    acquired: str | None
    created: str
    view: str | None
    state: State


class DisplayGiven(BaseModel):
    """How the values of ``pixels`` are shown at first; windows are stated in modality values."""

    width: int
    height: int
    bits: int
    slope: float = Field(description="modality value = slope x value + intercept")
    intercept: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID", "LUT"]
    centre: float
    width_of_window: float
    low: float = Field(description="modality value that becomes black")
    high: float = Field(description="modality value that becomes white")
    lut: list[float] | None = Field(description="grey 0..255 for each whole value from low on")
    inverted: bool
    padding: tuple[int, int] | None
    colour: bool
    how: str
    priors: list[Prior]


class MarkIn(Form):
    """A box that a reader accepts, rejects, has moved or adds."""

    box: Corners
    label: str = Field(alias="class", min_length=1, max_length=200)
    verdict: Literal["accepted", "rejected", "moved", "added"]
    prediction: int | None = Field(
        default=None, ge=0, le=100_000, description="place of the predicted box among the model's"
    )
    model: str | None = Field(default=None, max_length=64)

    @field_validator("box")
    @classmethod
    def _is_box(cls, box: Corners) -> Corners:
        return _checked_box(box)


class SeenAt(BaseModel):
    """When something was first done while an image was looked at."""

    after: float = Field(ge=0, le=1e7, allow_inf_nan=False, description="seconds")
    marks_before: int | None = Field(default=None, ge=0, le=100_000)


class Shown(BaseModel):
    """What was on the screen. The audit keeps it for ever: numbers and words of the page, and no text that a client makes up."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    seconds: float | None = Field(default=None, ge=0, le=1e7)
    boxes_seconds: float | None = Field(default=None, ge=0, le=1e7)
    threshold: float | None = Field(default=None, description="score from which boxes were shown")
    rule: str | None = Field(default=None, pattern=r"^[a-z0-9@._-]{1,32}$")
    view: Literal["one", "models", "prior"] | None = None
    models: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] | None = Field(
        default=None, max_length=100
    )
    boxes: bool | None = None
    read_first: bool | None = None
    order: Literal["newest", "suspicious", "active"] | None = None
    heat_maps: (
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}:[0-9a-z:]{1,20} [a-z-]{1,32}$")]] | None
    ) = Field(default=None, max_length=1000)
    view_one: SeenAt | None = None
    view_models: SeenAt | None = None
    view_prior: SeenAt | None = None
    threshold_moved: SeenAt | None = None
    revealed: SeenAt | None = None
    others_shown: SeenAt | None = None

    @field_validator(
        "seconds", "boxes_seconds", "rule", "view", "models", "boxes", "read_first", "order", "heat_maps",
        "view_one", "view_models", "view_prior", "threshold_moved", "revealed", "others_shown", mode="wrap",
    )  # fmt: skip
    @classmethod
    def _or_nothing(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """Nothing, in place of what is not of its form: no mark is refused for it. The threshold decides on negatives, and is."""
        try:
            return check(value)
        except ValidationError:
            return None


class ReadingIn(Form):
    """One save of a reader: all that stands now, in place of what the same reader said before."""

    reader: str = Field(min_length=1, max_length=64)
    marks: list[MarkIn] = Field(default_factory=list, max_length=2000)
    normal: bool | None = None
    text: str = Field(default="", max_length=20_000)
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="a name that the client makes for this save; the same one again is the same save",
    )
    labels: dict[str, bool] = Field(
        default_factory=dict,
        max_length=200,
        description="labels of the whole image that the reader states: present (true) or absent (false)",
    )
    model: str | None = Field(default=None, max_length=64, description="model that was shown")
    shown: Shown = Field(
        default_factory=Shown,
        description="what was on the screen; what has no name here is not kept",
    )
    seconds: float | None = Field(default=None, ge=0, le=1e7)
    finished: bool = Field(default=True, description="false for a save on the way")
    after: str | None = Field(
        default=None,
        pattern=r"^([0-9a-f]{16})?$",
        description="id of the reader's newest reading that this save was made of, empty for none: another one there by now is "
        "answered with 409; left out, the save takes the place of whatever is there",
    )

    @field_validator("reader")
    @classmethod
    def _is_name(cls, reader: str) -> str:
        if not NAME.fullmatch(reader):
            raise ValueError("expected letters, digits and . _ @ - of at most 64")
        return reader


class ReadingGiven(BaseModel):
    """A reading as it is kept."""

    id: str
    reader: str
    key: str
    created: str
    normal: bool | None
    text: str
    labels: dict[str, bool]
    model: str | None
    seconds: float | None
    finished: bool
    marks: list[MarkGiven]


class SessionIn(Form):
    """The token alone, or a user's name and password."""

    token: str | None = Field(default=None, max_length=1000)
    user: str | None = Field(default=None, max_length=64)
    password: str | None = Field(default=None, max_length=1000)


class SessionGiven(BaseModel):
    """Who is signed in."""

    who: str
    role: str
    named: bool = Field(description="true of a user, who reads under no other name")
    needed: bool = Field(description="whether this server asks for a token or a sign-in")
    csrf: str | None = Field(description="word for the header X-CSRF-Token of changes")
    expires: str | None


class Health(BaseModel):
    """Whether the server lives, and whether it can work."""

    status: Literal["ok"]
    ready: bool


class Readiness(BaseModel):
    """What the server needs, and whether it has it."""

    ready: bool
    database: bool
    workers: dict[str, int]
    disk_free_bytes: int
    takes_images: bool
    waiting: int | None
    why: str


class StudyMarkIn(Form):
    """A mark of a reader study: where, what, and how sure the reader is."""

    box: Corners
    label: str = Field(alias="class", min_length=1, max_length=200)
    rating: int | None = Field(
        default=None, ge=1, le=100, description="needed of every mark of a finished reading"
    )
    prediction: int | None = Field(
        default=None, ge=0, description="number of the shown box that it was, in the arm with boxes"
    )

    @field_validator("box")
    @classmethod
    def _is_box(cls, box: Corners) -> Corners:
        return _checked_box(box)


class StudyReadingIn(Form):
    """All that a reader says of a case: on the way, or for good where it is finished."""

    key: str = Field(
        min_length=1, max_length=40, description="name of this save; repeated, it is the same"
    )
    marks: list[StudyMarkIn] = Field(default_factory=list, max_length=500)
    text: str = Field(default="", max_length=20_000)
    seconds: float | None = Field(default=None, ge=0, le=1e7)
    shown: dict[str, float | bool | int] = Field(
        default_factory=dict,
        max_length=50,
        description="seconds with boxes on the screen, whether boxes are, number of heat maps looked at",
    )
    finished: bool = False


class StudyMark(BaseModel):
    """A mark that was saved."""

    box: Corners
    label: str = Field(serialization_alias="class")
    rating: int | None
    prediction: int | None


class StudyDraft(BaseModel):
    """What was saved of a case before it is final."""

    marks: list[StudyMark]
    text: str
    seconds: float | None


class StudyCase(BaseModel):
    """The case that lies before a reader. ``boxes`` are the model's, and none in the arm without."""

    session: int
    position: int
    arm: Literal["without", "with"]
    width: int
    height: int
    boxes: list[PredictedBox]
    draft: StudyDraft | None


class StudyNow(BaseModel):
    """Where a reader stands in the study; nothing of a case."""

    study: str
    reader: str
    state: Literal["preparing", "reading", "waiting", "finished"]
    session: int = Field(description="0 while practice cases are read, which count nowhere")
    sessions: int
    done: int
    planned: int
    until: str | None = Field(description="end of the wash-out")
    why: str
    classes: list[str]
    highest_rating: int
    scores: bool
    heat_maps: bool


class StudyProgress(BaseModel):
    """How far a reader is in one session."""

    reader: str
    session: int
    submitted: int
    planned: int
    last: str | None
