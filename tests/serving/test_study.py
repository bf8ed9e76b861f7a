"""A reader study as readers, and those who would cheat, meet it: orders, arms, wash-out, what is hidden, what is kept."""

from __future__ import annotations

import json
import threading

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from serving_support import LocalCrew, add, analysed, png, said
from study_support import (
    BASE,
    DAY,
    FAINT,
    PASSWORD,
    READERS,
    SHOWN,
    TOKEN,
    Served,
    mark,
    with_practice,
    write_study,
)
from support import twinray
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.serving.app.application import create_app
from twinray.serving.config import ServeConfig
from twinray.serving.log import log_to
from twinray.serving.store.readings import Marked, Said
from twinray.serving.store.store import open_store
from twinray.serving.store.studies import ClosedError, Planned


@pytest.fixture
def study(detect_run, tmp_path):
    served = Served(detect_run, tmp_path / "cases", str(tmp_path / "store"))
    served.answer_all()
    yield served
    served.service.store.close()


def where(client):
    return client.get("/api/study").json()


# --- the sequence -----------------------------------------------------------------------------------------------------


def read_all(study, marks=()):
    """Every reader reads both sessions; (reader, session, position) -> case as it was given."""
    seen = {}
    for session in (1, 2):
        for reader in READERS:
            while where(study.as_reader(reader))["state"] == "reading":
                case, answer = study.read(reader, marks)
                assert answer.status_code == 201, answer.text
                seen[reader, case["session"], case["position"]] = case
        if session == 1:
            study.clock.now += 29 * DAY
    return seen


def test_every_reader_reads_every_case_once_in_each_arm(study):
    seen = read_all(study)
    slots = {
        (s.reader, s.session, s.position): s for s in study.service.store.studies.slots("small")
    }
    assert seen.keys() == slots.keys()
    for place, case in seen.items():
        assert case["arm"] == slots[place].arm
        assert bool(case["boxes"]) == (case["arm"] == "with")
    for reader in READERS:
        own = [slot for (name, _, _), slot in slots.items() if name == reader]
        for session in (1, 2):
            assert len({s.image for s in own if s.session == session}) == 6
            assert sum(s.arm == "with" for s in own if s.session == session) == 3
        assert len({(s.image, s.arm) for s in own}) == 12
        assert where(study.as_reader(reader))["state"] == "finished"
    orders = {(r, k): [s.image for p, s in sorted(slots.items()) if p[:2] == (r, k)] for r in READERS for k in (1, 2)}  # fmt: skip
    assert len({tuple(order) for order in orders.values()}) == 4
    # over both readers every case is read with boxes first by one and without them first by the other
    first = {r: {s.image: s.arm for p, s in slots.items() if p[:2] == (r, 1)} for r in READERS}
    assert all(first["ann"][image] != first["bob"][image] for image in first["ann"])


def test_practice_comes_first_and_counts_nowhere(detect_run, tmp_path):
    folder = tmp_path / "cases"
    study = Served(detect_run, folder, str(tmp_path / "store"), **with_practice(folder))
    study.answer_all()
    arms = []
    for n in range(3):
        now = where(study.as_reader("ann"))
        assert (now["state"], now["session"], now["done"], now["planned"]) == ("reading", 0, n, 3)
        case, answer = study.read("ann", [mark()])
        assert (answer.status_code, case["session"], case["position"]) == (201, 0, n + 1)
        arms.append((case["arm"], len(case["boxes"])))
    assert arms == [
        ("without", 0),
        ("with", 1),
        ("without", 0),
    ]  # all readers learn both, in the file's order
    assert study.send("ann", case, [mark()], key="again", finished=True).status_code == 409
    for reader in READERS:
        while where(study.as_reader(reader))["session"] < 2:
            if where(study.as_reader(reader))["state"] == "waiting":
                break
            study.read(reader, [mark()])
    study.clock.now += 29 * DAY
    for reader in READERS:
        while where(study.as_reader(reader))["state"] == "reading":
            case, _ = study.read(reader, [mark()])
            assert case["session"] == 2  # practice is not repeated
    study.restart()  # the design goes on as it was fixed
    images = {image.id: image.sha256 for image in study.service.store.images.page(size=50).images}
    practice = {s.image for s in study.service.store.studies.slots("small") if s.session == 0}
    assert len(practice) == 3 and len(images) == 9
    study.service.store.close()
    out = tmp_path / "figures"
    twinray("store", "reader-study", "--store", tmp_path / "store", "--name", "small", "--output", out, check=True)  # fmt: skip
    told = json.loads((out / "figures.json").read_text())
    assert (told["cases"], told["practice_cases"]) == (6, 3)
    assert not [note for note in told["notes"] if "forgotten" in note or "to come" in note]
    for name in ("marks.csv", "readings.csv"):
        text = (out / name).read_text()
        assert text.count("\n") == 1 + 2 * 2 * 6
        assert not [image for image in practice if image in text]
    twinray("pack", tmp_path / "store", "--format", "feedback", "--out", tmp_path / "pack", "--val", 0, "--test", 0, check=True)  # fmt: skip
    assert not practice & set(map(str, open_pack(tmp_path / "pack").ids))


@pytest.mark.parametrize(
    ("patient", "images", "words"),
    [
        ("Canary^Name 1", 100, "patients that are in no case"),
        ("learner", 0, "are the same file"),
    ],
)
def test_practice_on_what_is_counted_is_refused(detect_run, tmp_path, patient, images, words):
    folder = tmp_path / "cases"
    options = with_practice(folder, patient=patient)
    (folder / "practice" / "0.png").write_bytes(png(images))
    with pytest.raises(InputError, match=words):
        Served(detect_run, folder, str(tmp_path / "store"), **options)


def test_practice_is_fixed_with_the_study(detect_run, tmp_path):
    folder = tmp_path / "cases"
    study = Served(detect_run, folder, str(tmp_path / "store"), **with_practice(folder))
    study.service.store.close()
    with_practice(folder, patient="other")
    with pytest.raises(InputError, match="fixed with another practice"):
        study.start()
    write_study(folder)  # and without
    with pytest.raises(InputError, match="fixed with another practice"):
        study.start()


def test_the_seed_alone_makes_the_order(detect_run, tmp_path):
    orders = []
    for number, seed in enumerate((3, 3, 4)):
        served = Served(
            detect_run, tmp_path / f"cases{number}", str(tmp_path / f"store{number}"), seed=seed
        )
        images = {
            image.id: image.sha256 for image in served.service.store.images.page(size=50).images
        }
        orders.append(
            [(s.reader, s.session, images[s.image], s.arm) for s in served.service.store.studies.slots("small")]
        )  # fmt: skip
        served.service.store.close()
    assert orders[0] == orders[1] != orders[2]


def test_the_second_session_cannot_begin_early(study):
    for _ in range(6):
        study.read("ann")
    client = study.as_reader("ann")
    now = where(client)
    assert (now["state"], now["session"], now["done"], now["planned"]) == ("waiting", 1, 6, 6)
    assert client.post("/api/study/next").status_code == 409
    last = study.clock.now
    study.clock.now = last + 27.9 * DAY
    assert where(client)["state"] == "waiting" and client.post("/api/study/next").status_code == 409
    assert client.get("/api/study/cases/2/1/pixels").status_code == 409
    study.clock.now = last + 28.1 * DAY
    assert (where(client)["state"], where(client)["session"]) == ("reading", 2)
    # bob's wash-out is bob's own
    assert where(study.as_reader("bob"))["session"] == 1
    assert client.post("/api/study/next").json()["session"] == 2


def test_nobody_reads_before_the_model_has_answered(detect_run, tmp_path):
    study = Served(detect_run, tmp_path / "cases", str(tmp_path / "store"))
    client = study.as_reader("ann")
    assert (where(client)["state"], where(client)["why"]) == (
        "preparing",
        "the model has answered for 0 of 6 cases",
    )
    assert client.post("/api/study/next").status_code == 409
    study.answer_all()
    assert client.post("/api/study/next").status_code == 200
    study.service.store.close()


def test_there_is_no_way_back_and_none_ahead(study):
    first, answer = study.read("ann", [mark()])
    assert answer.json()["done"] == 1
    again = study.send("ann", first, [], key="another")
    assert again.status_code == 409 and "final" in again.json()["detail"]
    client = study.as_reader("ann")
    for position in (first["position"], first["position"] + 1, first["position"] + 2):
        # the next one is not open either, before it is asked for
        assert client.get(f"/api/study/cases/1/{position}/display").status_code == 409
        ahead = {**first, "position": position}
        assert study.send("ann", ahead, [], key="ahead", finished=True).status_code == 409
    (kept,) = study.service.store.studies.submitted("small")
    assert len(kept[1].marks) == 1


def test_a_repeated_save_is_the_same_save(study):
    case = study.as_reader("ann").post("/api/study/next").json()
    for _ in range(3):
        assert study.send("ann", case, [mark()], key="one", finished=True).status_code == 201
    assert len(study.service.store.studies.submitted("small")) == 1
    assert where(study.as_reader("ann"))["done"] == 1


def test_a_restart_goes_on_where_the_reader_was(study):
    for _ in range(2):
        study.read("ann", [mark()])
    case = study.as_reader("ann").post("/api/study/next").json()
    draft = [mark((1, 2, 9, 9), None), mark((20, 20, 40, 40), 7)]
    assert study.send("ann", case, draft, text="unsure", seconds=4.5).status_code == 201
    study.restart()
    client = study.as_reader("ann")
    assert where(client)["done"] == 2
    again = client.post("/api/study/next").json()
    assert {k: again[k] for k in ("session", "position", "arm", "boxes")} == {
        k: case[k] for k in ("session", "position", "arm", "boxes")
    }
    assert [one["rating"] for one in again["draft"]["marks"]] == [None, 7]
    assert (again["draft"]["text"], again["draft"]["seconds"]) == ("unsure", 4.5)


def test_two_tabs_of_one_reader_submit_once(study):
    case = study.as_reader("ann").post("/api/study/next").json()
    codes = []

    def submit(key: str) -> None:
        codes.append(study.send("ann", case, [mark()], key=key, finished=True).status_code)

    tabs = [threading.Thread(target=submit, args=(f"tab{i}",)) for i in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert sorted(codes) == [201, 409, 409, 409]


def test_two_readers_at_once_lose_nothing(study):
    def read(name: str, rating: int) -> None:
        for _ in range(6):
            _, answer = study.read(name, [mark(rating=rating)])
            assert answer.status_code == 201

    study.as_reader("ann"), study.as_reader("bob")
    both = [threading.Thread(target=read, args=(n, r)) for n, r in (("ann", 11), ("bob", 22))]
    for one in both:
        one.start()
    for one in both:
        one.join()
    kept = study.service.store.studies.submitted("small")
    assert sorted((s.reader, m.rating) for s, w in kept for m in w.marks) == [("ann", 11.0)] * 6 + [("bob", 22.0)] * 6  # fmt: skip


def test_marks_need_ratings_and_must_be_of_the_case(study):
    case = study.as_reader("ann").post("/api/study/next").json()
    for marks, words in (
        ([mark(rating=None)], "rating of 1 to 100"),
        ([mark(rating=0)], "rating"),
        ([mark(rating=101)], "rating"),
        ([mark((10, 10, 90, 30))], "image of 64 x 64"),
        ([{**mark(), "class": "cat"}], "expected class to be one of blob"),
        ([mark(prediction=1)], "no box of that number"),
        ([mark((30, 10, 10, 30))], "x0 below x1"),
    ):
        answer = study.send("ann", case, marks, finished=True)
        assert answer.status_code == 422 and words in answer.json()["detail"], (marks, answer.text)
    assert not study.service.store.studies.submitted("small")


def test_a_shorter_scale_has_its_own_end(detect_run, tmp_path):
    study = Served(detect_run, tmp_path / "cases", str(tmp_path / "store"), highest_rating=5)
    study.answer_all()
    case = study.as_reader("ann").post("/api/study/next").json()
    assert study.send("ann", case, [mark(rating=6)], finished=True).status_code == 422
    assert study.send("ann", case, [mark(rating=5)], finished=True).status_code == 201
    study.service.store.close()


def test_boxes_that_are_taken_are_told_from_own_ones(study):
    def marks(case):
        if case["arm"] == "without":
            return [mark()]
        (box,) = case["boxes"]
        return [
            mark(box["box"], prediction=0),
            mark((11, 13, 33, 30), 5, prediction=0),
            mark((1, 1, 5, 5)),
        ]

    for _ in range(6):
        study.read("ann", marks)
    for slot, whole in study.service.store.studies.submitted("small"):
        told = [(m.verdict, m.prediction, m.model is None) for m in whole.marks]
        if slot.arm == "with":
            assert told == [("accepted", 0, False), ("moved", 0, False), ("added", None, True)]
        else:
            assert told == [("added", None, True)]


# --- what a reader must not see ---------------------------------------------------------------------------------------


def every_route(client):
    described = client.get("/openapi.json").json()["paths"]
    return [(m.upper(), path) for path, item in described.items() for m in item]


def test_in_the_arm_without_boxes_no_route_tells_what_the_model_found(study):
    service = study.service
    service.crew = LocalCrew(service, [study.run])
    client = study.as_reader("ann")
    while (case := client.post("/api/study/next").json())["arm"] != "without":
        study.send("ann", case, [], finished=True)
    secrets = (
        "0.75",
        "0.25",
        'score":0',
        service.first.model,
        *(repr(c) for c in SHOWN.corners if c % 1),
    )
    (slot,) = [s for s in service.store.studies.slots("small", "ann") if (s.session, s.position) == (case["session"], case["position"])]  # fmt: skip
    routes = every_route(client)
    assert ("GET", "/api/study") in routes and len(routes) > 8
    asked = 0
    for method, path in [
        *routes,
        *(("GET", p) for p in (
            "/api/images", f"/api/images/{slot.image}", f"/api/images/{slot.image}/heat-map?box=0", "/api/marks", "/api/models",
            f"/api/images/{slot.image}/readings", f"/api/images/{slot.image}/display", f"/api/images/{slot.image}/pixels",
            "/api/images?order=suspicious", "/api/study/progress", "/metrics", "/api/archive",
        )),
    ]:  # fmt: skip
        if (method, path) in (("POST", "/api/session"), ("DELETE", "/api/session")):
            continue
        path = path.replace("{session}", str(case["session"])).replace(
            "{position}", str(case["position"])
        )
        answer = client.request(method, path + ("?box=0" if path.endswith("heat-map") else ""), json={"key": "k"} if path.endswith("marks") else None)  # fmt: skip
        asked += 1
        if path.endswith("pixels") and path.startswith("/api/study"):
            assert answer.status_code == 200 and len(answer.content) == 2 * 64 * 64
            continue
        if path.startswith("/api/images") or path in ("/api/marks", "/api/models", "/api/archive"):
            assert answer.status_code == 404, path
        if path in ("/metrics", "/api/study/progress"):
            assert answer.status_code == 403
        if "heat-map" in path:
            assert answer.status_code == 404
        text = answer.text
        assert not any(secret in text for secret in secrets), (path, text)
        assert slot.image not in text
    assert asked > 15
    assert case["boxes"] == []
    assert client.post("/api/study/next").json()["boxes"] == []


def test_with_boxes_only_those_above_the_threshold_are_shown(study):
    client = study.as_reader("ann")
    while (case := client.post("/api/study/next").json())["arm"] != "with":
        study.send("ann", case, [], finished=True)
    assert case["boxes"] == [{"box": [*SHOWN.corners], "class": "blob", "score": 0.75}]
    assert str(FAINT.score) not in json.dumps(case)
    # a heat map is shown where the study says so alone
    place = f"/api/study/cases/{case['session']}/{case['position']}/heat-map?box=0"
    assert client.get(place).status_code == 404


def test_only_readers_read_and_only_admins_see_how_far_they_are(study):
    for client in (study.as_reader("carla"), study.as_admin()):
        assert client.get("/api/study").status_code == 403
        assert client.post("/api/study/next").status_code == 403
        assert client.get("/api/study/cases/1/1/pixels").status_code == 403
    assert study.as_reader("carla").get("/api/study/progress").status_code == 403
    study.read("bob")
    told = study.as_admin().get("/api/study/progress").json()
    assert [(one["reader"], one["session"], one["submitted"], one["planned"]) for one in told] == [
        ("ann", 1, 0, 6), ("ann", 2, 0, 6), ("bob", 1, 1, 6), ("bob", 2, 0, 6),
    ]  # fmt: skip
    assert study.as_admin().get("/metrics").status_code == 200


def test_nobody_is_let_in_without_a_session_and_a_client_makes_nothing_up(study):
    client = study.as_reader("ann")
    nobody = TestClient(study.app, base_url=BASE)
    for method, path in every_route(client):
        if (method, path) not in (("GET", "/health"), ("POST", "/api/session")):
            path = path.replace("{session}", "1").replace("{position}", "1")
            assert nobody.request(method, path).status_code == 401, path
    case = client.post("/api/study/next").json()
    assert study.send("ann", case, shown={"boxes_seconds": "CANARY^NAME"}).status_code == 422
    told = {"CANARY": 1, "boxes_seconds": 2.5, "arm": 1}
    assert study.send("ann", case, shown=told).status_code == 201
    (slot,) = [s for s in study.service.store.studies.slots("small", "ann") if s.opened]
    shown = study.service.store.studies.newest(slot.number).reading.shown
    assert shown["boxes_seconds"] == 2.5 and shown["arm"] == slot.arm and "CANARY" not in shown


def test_a_reader_who_has_left_does_not_stop_the_others(study):
    study.service.store.people.disable("bob")
    study.restart()
    assert study.read("ann")[1].status_code == 201


def test_opening_a_case_needs_the_sessions_word(study):
    client = study.as_reader("ann")
    word = client.headers.pop("x-csrf-token")
    assert client.post("/api/study/next").status_code == 403
    client.headers["x-csrf-token"] = word
    assert client.post("/api/study/next").status_code == 200


def test_no_name_of_a_file_or_patient_leaves_its_place(study, tmp_path):
    log = tmp_path / "log"
    log_to(log)
    read_all(study, [mark()])
    log_to(None)
    said = [study.as_reader("ann").get("/api/study").text, study.as_admin().get("/metrics").text]
    store = study.service.store
    with store.database.engine.connect() as one:
        tables = sa.MetaData()
        tables.reflect(one)
        rows = [repr(row) for table in tables.sorted_tables for row in one.execute(sa.select(table)).all()]  # fmt: skip
    for text in (log.read_text(), *said, *rows):
        assert "Canary" not in text


# --- what is fixed ----------------------------------------------------------------------------------------------------


def test_a_study_is_not_changed_once_it_is_fixed(study, tmp_path):
    study.service.store.close()
    for change in (
        {"seed": 4},
        {"threshold": 0.4},
        {"readers": ["ann"]},
        {"wash_out_days": 1},
        {"hit": "centre"},
    ):
        write_study(tmp_path / "cases", **change)
        with pytest.raises(InputError, match=f"fixed with another {next(iter(change))}"):
            study.restart()
    write_study(tmp_path / "cases")
    cases = tmp_path / "cases" / "cases.json"
    cases.write_text(cases.read_text().replace("18.0", "19.0"))
    with pytest.raises(InputError, match="fixed with another cases"):
        study.restart()
    write_study(tmp_path / "cases")
    study.restart()
    assert where(study.as_reader("ann"))["state"] == "reading"


def test_a_store_whose_study_goes_on_is_served_as_nothing_else(study, detect_run):
    study.read("ann")
    store = study.store
    study.service.store.close()
    from twinray.files import folders_freed

    with folders_freed():
        pass
    plain = ServeConfig(runs=(detect_run,), store=store, min_free=1)
    with pytest.raises(InputError, match=r"reader study small, in which 1 of 24 cases were read"):
        create_app(plain, token=TOKEN, work=False)
    with folders_freed():
        pass
    twinray("store", "end-study", "--store", store, "--name", "small", check=True)
    app = create_app(plain, token=TOKEN, work=False)
    app.state.service.store.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"readers": ["ann", "zoe"]}, "zoe is none; twinray store add-user --name zoe"),
        ({"readers": []}, "names of users"),
        ({"readers": ["ann", "ann"]}, "each once"),
        ({"threshold": 0}, "threshold"),
        ({"thresold": 0.5}, "'thresold' is not known"),
        ({"study": "../x"}, "letters, digits"),
        ({"cases": "nowhere.json"}, "nowhere.json is not there"),
        ({"hit": 1.5}, "IoU above 0"),
        ({"wash_out_days": -1}, "wash_out_days"),
        ({"highest_rating": 1}, "highest_rating"),
    ],
)
def test_what_is_no_study_is_refused_in_one_line(detect_run, tmp_path, options, words):
    with pytest.raises(InputError) as caught:
        Served(detect_run, tmp_path / "cases", str(tmp_path / "store"), **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_forgotten_patient_leaves_the_study_and_does_not_come_back(study):
    images = study.service.store.images.page(size=50).images
    gone = study.service.store.images.forget(image=images[0].id, who="operator")
    assert len(gone) == 1
    study.restart()
    assert where(study.as_reader("ann"))["planned"] == 5
    assert study.service.store.images.page(size=50).total == 5
    for _ in range(5):
        assert study.read("ann")[1].status_code == 201
    assert where(study.as_reader("ann"))["state"] == "waiting"


def test_the_tables_hold_in_both_databases(store):
    image, _ = add(store)
    analysed(store, image)
    planned = [Planned("ann", s, 1, image.id, arm) for s, arm in ((1, "without"), (2, "with"))]
    for _ in range(2):
        assert store.studies.begin("one", {"model": "m"}, "hash", planned).sha256 == "hash"
    first, second = store.studies.slots("one", "ann")
    assert store.studies.open_ones() == {"one": (0, 2)}
    own = Said(image.id, "ann", "k", (Marked((1, 2, 3, 4), "blob", "added", rating=40.0),))
    whole, new = store.studies.save(first.number, own, "ann", 5.0)
    assert new and [m.rating for m in whole.marks] == [40.0]
    assert store.studies.save(first.number, own, "ann", 6.0)[1] is False
    with pytest.raises(ClosedError):
        store.studies.save(first.number, said(image.id, "other", "ann"), "ann", 7.0)
    (kept,) = store.studies.submitted("one")
    assert (kept[0].submitted, kept[0].opened) == (5.0, 5.0)
    assert [(p.session, p.submitted, p.last) for p in store.studies.progress("one")] == [(1, 1, 5.0), (2, 0, None)]  # fmt: skip
    assert store.studies.newest(second.number) is None
    store.images.forget(image=image.id, who="operator")
    assert store.studies.slots("one") == [] and store.studies.submitted("one") == []


def test_the_study_page_is_served_in_place_of_the_viewer(study):
    page = study.as_reader("ann").get("/")
    assert page.status_code == 200 and "study.js" in page.text


def test_a_study_takes_no_images(study):
    answer = study.as_admin().post("/api/images", files=[("file", ("a.png", png()))])
    assert answer.status_code == 404
    assert PASSWORD not in answer.text


def test_the_store_is_left_to_open(study, tmp_path):
    study.read("ann", [mark()])
    again = open_store(study.store)
    assert len(again.studies.submitted("small")) == 1
    again.close()
