"""The store on SQLite and on PostgreSQL: the same suite for both."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from serving_support import BOX, add, analysed, said
from twinray.errors import InputError
from twinray.inference.active import uncertainty
from twinray.serving.store.database import Database, UnavailableError
from twinray.serving.store.images import MOST_ATTEMPTS, Box, Facts
from twinray.serving.store.models import Base, Image
from twinray.serving.store.readings import Marked
from twinray.serving.store.store import open_store
from twinray.serving.store.teaching import as_text, from_texts


def test_the_same_bytes_are_the_same_image_and_lie_on_the_disk_under_their_hash(store):
    first, new = add(store, b"one")
    again, known = add(store, b"one", "another name.png")
    other, _ = add(store, b"two")
    assert (new, known) == (True, False)
    assert again.id == first.id != other.id
    assert again.name == "a.png"
    digest = hashlib.sha256(b"one").hexdigest()
    assert store.files.place(digest).read_bytes() == b"one"
    assert [*store.files.incoming.iterdir()] == []


def test_uploads_of_many_threads_are_one_image_each(store):
    made, errors = [], []

    def upload(number: int) -> None:
        try:
            made.append(add(store, b"x%d" % (number % 5))[0].id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert errors == []
    assert len(set(made)) == 5
    assert store.images.page().total == 5


def test_an_image_is_claimed_by_one_worker_and_its_answer_written_once(store):
    image, _ = add(store)
    store.images.serve([("m", "run", ["blob"])])
    claim = store.images.claim("w1", ["m"])
    assert (claim.id, claim.models) == (image.id, ("m",))
    assert store.images.claim("w2", ["m"]) is None
    assert store.images.get(image.id).state == "running"
    assert not store.images.finish(claim, "w2", Facts(1, 1), {"m": []}, 0.1, first="m")
    assert store.images.finish(claim, "w1", Facts(100, 80), {"m": [BOX]}, 0.1, first="m")
    assert not store.images.finish(claim, "w1", Facts(1, 1), {"m": []}, 0.1, first="m")
    kept = store.images.get(image.id)
    assert (kept.state, kept.width, kept.height, kept.score) == ("done", 100, 80, 0.75)
    (found,) = store.images.predictions(image.id, "m")
    assert (found.x0, found.y0, found.x1, found.y1) == BOX.corners
    assert (found.label, found.score) == ("blob", 0.75)


def test_what_a_killed_worker_had_goes_back_and_one_that_always_kills_is_given_up(store):
    good, _ = add(store, b"good")
    bad, _ = add(store, b"bad")
    store.images.serve([("m", "run", ["blob"])])
    done = []
    for _ in range(20):
        claim = store.images.claim("w", ["m"])
        if claim is None:
            break
        if claim.id == good.id and len(done) < 1 and store.images.get(good.id).attempts > 1:
            store.images.finish(claim, "w", Facts(1, 1), {"m": []}, 0.1, first="m")
            done.append(claim.id)
        else:
            store.images.release("w")
    assert store.images.get(good.id).state == "done"
    kept = store.images.get(bad.id)
    assert kept.state == "failed" and f"{MOST_ATTEMPTS} times" in kept.reason
    assert store.images.waiting() == 0


def test_a_graceful_stop_is_no_attempt(store):
    image, _ = add(store)
    store.images.serve([("m", "run", ["blob"])])
    store.images.claim("mark-1", ["m"])
    assert store.images.release("mark", begun=False) == 1
    kept = store.images.get(image.id)
    assert (kept.state, kept.attempts, kept.worker) == ("queued", 0, None)


def test_a_new_model_lets_old_images_wait_and_an_old_one_that_left_is_no_work(store):
    image, _ = add(store)
    analysed(store, image)
    assert store.images.serve([("m", "run", ["blob"])]) == 0
    assert store.images.serve([("n", "new", ["blob"]), ("m", "run", ["blob"])]) == 1
    assert store.images.get(image.id).state == "done"  # its boxes are there all the while
    assert store.images.get(image.id).score is None  # but none of the model that is first now
    claim = store.images.claim("w", ["n", "m"])
    assert claim.models == ("n",)
    store.images.release("w")
    claim = store.images.claim("w", ["m"])
    assert claim.models == ()
    assert store.images.waiting() == 0


def test_the_worklist_orders_searches_and_pages(store):
    ids = [add(store, b"%d" % i, f"name_{i}%.png")[0].id for i in range(5)]
    store.images.serve([("m", "run", ["blob"])])
    for score in (0.2, 0.9):
        claim = store.images.claim("w", ["m"])
        boxes = [Box(BOX.corners, "blob", score)]
        store.images.finish(claim, "w", Facts(9, 9, patient="p"), {"m": boxes}, 0.1, first="m")
    rows = lambda **how: [one.id for one in store.images.page(**how).images]  # noqa: E731
    assert rows() == ids[::-1]
    assert rows(order="suspicious") == [*ids[:1:-1], ids[1], ids[0]]
    assert rows(order="suspicious", model="m") == [*ids[:1:-1], ids[1], ids[0]]
    assert rows(states=["done"]) == [ids[1], ids[0]]
    assert rows(q="NAME_3") == [ids[3]]
    assert rows(q="%") == ids[::-1]  # a sign of the database's own means itself
    assert rows(q="e_") == ids[::-1] and rows(q="m_n") == []
    assert rows(q="p") == rows()  # of a patient's whole pseudonym, or part of a name
    assert rows(page=2, size=2) == [ids[2], ids[1]]
    assert store.images.page(size=2).total == 5
    assert store.images.counts() == {"queued": 3, "running": 0, "done": 2, "failed": 0}


def test_priors_are_earlier_images_of_the_same_patient(store):
    made = []
    for i, (patient, acquired) in enumerate(
        [("p", "20200101"), ("q", "20200102"), ("p", "20210101"), ("p", "20190101"), (None, None)]
    ):
        image, _ = add(store, b"%d" % i)
        analysed(store, image, facts=Facts(9, 9, patient, acquired))
        made.append(image.id)
    of = lambda i: [one.id for one in store.images.priors(store.images.get(made[i]))]  # noqa: E731
    assert of(2) == [made[0], made[3]]
    assert of(3) == [] and of(1) == [] and of(4) == []


def test_a_repeated_save_is_one_reading_and_a_later_one_takes_its_place_without_deleting(store):
    image, _ = add(store)
    first, new = store.readings.save(said(image.id), "anna")
    again, repeated = store.readings.save(said(image.id, text="changed"), "anna")
    assert (new, repeated) == (True, False)
    assert again.reading.id == first.reading.id and again.reading.text == ""
    store.readings.save(said(image.id, "k2", marks=(), normal=True), "anna")
    store.readings.save(said(image.id, "k", reader="ben"), "ben")
    newest = store.readings.of_image(image.id)
    assert [(one.reading.reader, one.reading.normal, len(one.marks)) for one in newest] == [
        ("anna", True, 0),
        ("ben", None, 1),
    ]
    assert len(store.readings.of_image(image.id, every=True)) == 3
    assert [one.reading.id for one in store.readings.all(at_once=1)] == [
        one.reading.id for one in newest
    ]
    assert store.images.get(image.id).read is not None
    with pytest.raises(KeyError):
        store.readings.save(said("0" * 16), "anna")


def test_an_unfinished_save_is_no_read_image(store):
    image, _ = add(store)
    store.readings.save(said(image.id, finished=False), "anna")
    assert store.images.get(image.id).read is None
    assert [one.id for one in store.images.page(states=["unread"]).images] == [image.id]


def test_a_done_that_is_taken_back_is_unread_again_unless_another_reader_is_done(store):
    image, _ = add(store)
    store.readings.save(said(image.id, "k1"), "anna")
    store.readings.save(said(image.id, "k2", finished=False), "anna")
    assert store.images.get(image.id).read is None
    store.readings.save(said(image.id, "k1", reader="ben"), "ben")
    store.readings.save(said(image.id, "k3", finished=False), "anna")
    assert store.images.get(image.id).read is not None


def test_a_failed_image_can_wait_again_and_no_other(store):
    image, _ = add(store)
    store.images.serve([("m", "model", ["a"])])
    assert not store.images.again(image.id, "anna")
    claim = store.images.claim("w", ["m"])
    store.images.finish(claim, "w", None, {}, 0.1, first="m", reason="broken")
    assert store.images.get(image.id).state == "failed"
    assert store.images.again(image.id, "anna")
    found = store.images.get(image.id)
    assert (found.state, found.reason, found.pending) == ("queued", "", True)
    claim = store.images.claim("w", ["m"])
    boxes = [Box((0, 0, 4, 4), "a", score) for score in (0.5, 0.5, 0.01)]
    store.images.finish(claim, "w", Facts(8, 8, None, None, None), {"m": boxes}, 0.1, first="m")
    assert store.images.get(image.id).teach == pytest.approx(
        2.0
    )  # two doubtful boxes of one bit each


def test_the_same_key_from_many_threads_is_one_reading(store):
    image, _ = add(store)
    new = []
    threads = [
        threading.Thread(target=lambda: new.append(store.readings.save(said(image.id), "anna")[1]))
        for _ in range(10)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(new) == [False] * 9 + [True]
    assert len(store.readings.of_image(image.id, every=True)) == 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corners=st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False)] * 4),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50),
)
def test_numbers_and_texts_come_back_as_they_were(store, corners, text):
    image, _ = add(store)
    key = hashlib.sha256(repr((corners, text)).encode()).hexdigest()
    marks = (Marked(corners, "blob", "added"),)
    whole, _ = store.readings.save(said(image.id, key, marks=marks, text=text), "anna")
    (kept,) = [
        one
        for one in store.readings.of_image(image.id, every=True)
        if one.reading.id == whole.reading.id
    ]
    (mark,) = kept.marks
    assert (mark.x0, mark.y0, mark.x1, mark.y1) == corners
    assert kept.reading.text == text


@pytest.mark.parametrize("change", ["DELETE FROM audit", "UPDATE audit SET who = 'x'"])
def test_the_database_itself_keeps_the_audit(store, change):
    add(store)
    with pytest.raises(DBAPIError, match="only added to"), store.database.engine.begin() as one:
        one.exec_driver_sql(change)
    assert [row.action for row in store.audit.rows()] == ["image added"]


def test_users_and_sessions(store):
    with pytest.raises(InputError, match="12 characters"):
        store.people.add("anna", "short")
    with pytest.raises(InputError, match="expected a name"):
        store.people.add("an na", "long enough, is it")
    store.people.add("anna", "long enough, is it")
    assert store.people.check("anna", "long enough, is it") == "reader"
    assert store.people.check("anna", "long enough, is it not") is None
    assert store.people.check("nobody", "long enough, is it") is None
    signed = store.people.sign_in("anna", "reader", 1.0)
    assert store.people.signed_in(signed.secret).csrf == signed.csrf
    assert store.people.signed_in(signed.secret + "x") is None
    late = store.people.sign_in("anna", "reader", -1.0)
    assert store.people.signed_in(late.secret) is None
    store.people.disable("anna")
    assert store.people.signed_in(signed.secret) is None
    assert store.people.check("anna", "long enough, is it") is None


@pytest.mark.parametrize("name", ["token", "Server", "operator", "local", "archive"])
def test_nobody_signs_in_under_a_name_of_the_audit(store, name):
    with pytest.raises(InputError, match="choose another"):
        store.people.add(name, "a long password")


def test_connections_that_are_all_taken_are_a_database_that_is_away(store, monkeypatch):
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    def none_left(*_):
        raise PoolTimeoutError("QueuePool limit")

    monkeypatch.setattr(store.database.engine.pool, "connect", none_left)
    with pytest.raises(UnavailableError):
        store.images.counts()
    with pytest.raises(UnavailableError):
        store.audit.add("tester", "looked")


def test_no_secret_is_kept_in_the_clear(store):
    store.people.add("anna", "a very long secret word")
    signed = store.people.sign_in("anna", "reader", 1.0)
    with store.database.engine.connect() as one:
        rows = [
            str(row)
            for table in Base.metadata.sorted_tables
            for row in one.execute(sa.select(table)).all()
        ]
    assert not [row for row in rows if "a very long secret word" in row or signed.secret in row]


def test_tables_are_those_of_the_migrations(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.database.engine.connect() as one:
        context = MigrationContext.configure(one, opts={"compare_type": True})
        found = [
            change
            for change in compare_metadata(context, Base.metadata)
            if not (isinstance(change, tuple) and change[0] == "remove_table")
        ]
    assert found == []


def test_a_store_of_a_later_version_is_refused(store, place, tmp_path):
    with store.database.engine.begin() as one:
        one.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match="later version"):
        open_store(place, tmp_path / "store")


def test_a_patient_is_forgotten_with_all_that_was_said(store):
    first, _ = add(store, b"first")
    analysed(store, first, facts=Facts(9, 9, "p"))
    store.readings.save(said(first.id, text="remarks"), "anna")
    other, _ = add(store, b"other")
    gone = store.images.forget(patient="p", who="operator")
    assert gone == [hashlib.sha256(b"first").hexdigest()]
    with store.database.engine.connect() as one:
        left = {
            table.name: one.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }
    assert left["images"] == 1 and store.images.get(other.id)
    assert (left["analyses"], left["predictions"], left["readings"], left["marks"]) == (0, 0, 0, 0)
    assert store.images.forget(image=other.id, who="operator") != []


def test_nothing_of_a_forgotten_patient_is_left_in_the_files_of_the_database(tmp_path):
    """SQLite would mark the space as free and leave the words there, in its file and in its log of changes."""
    place = tmp_path / "store"
    store = open_store(place)
    serving = open_store(place)  # as a server has it open
    word = "CANARY^" + "FORGOTTEN" * 40
    for n in range(30):
        image, _ = add(store, b"%d" % n, f"{word}.png")
        facts = Facts(100, 80, patient="p7" if n % 2 else "p8")
        analysed(store, image, facts=facts)
        store.readings.save(said(image.id, text=word), "anna")
    store.exchange.name("p7", word, "")
    assert len(serving.images.page().images) == 30

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in place.glob("store.sqlite*"))

    assert word.encode() in held()
    for patient in ("p7", "p8"):
        store.images.forget(patient=patient, who="operator")
    assert store.database.wipe()
    assert b"FORGOTTEN" not in held()
    assert serving.images.page().images == []
    serving.close()
    store.close()


def test_what_was_made_of_images_that_are_gone_leaves_the_cache(tmp_path):
    store = open_store(tmp_path / "store")
    image, _ = add(store, b"kept")
    for name in (f"{image.sha256}.pixels1", f"{'0' * 64}.pixels1", ".half", "notes"):
        (store.files.cache / name).write_bytes(b"x")
    (store.files.incoming / "half").write_bytes(b"x")
    store.clean()
    assert [path.name for path in store.files.cache.iterdir()] == [f"{image.sha256}.pixels1"]
    assert [*store.files.incoming.iterdir()] == []
    store.close()


def test_a_database_that_cannot_be_reached_is_one_line():
    with pytest.raises(InputError, match=r"could not open the store .*check path or URL") as told:
        Database("postgresql://user:hidden@127.0.0.1:1/none")
    assert "hidden" not in str(told.value)
    with pytest.raises(InputError, match="got one of mysql"):
        Database("mysql://127.0.0.1/none")


def test_every_statement_hides_its_values(store):
    """Messages of a database quote the values of a statement: names of patients."""
    with pytest.raises(DBAPIError) as told, store.database.engine.begin() as one:
        one.execute(sa.insert(Image), [{"id": "SECRET^NAME", "name": "SECRET^NAME"}])
    message = str(told.value).replace(str(told.value.orig), "")
    assert "SECRET^NAME" not in message


def doubtful(store, scores, features, models=("m",)):
    """Images with one box each, by score, and features; their ids."""
    made = []
    for n, (score, own) in enumerate(zip(scores, features, strict=True)):
        image, _ = add(store, b"doubt %d" % n, f"{n}.png")
        boxes = [Box((0, 0, 4, 4), "a", score)]
        analysed(store, image, boxes, models, features=own)
        made.append(image.id)
    return made


def active(store, **more):
    return [one.id for one in store.images.page(order="active", **more).images]


def test_what_teaches_most_is_in_doubt_and_unlike_what_came_before(store):
    scores = (0.5, 0.48, 0.3, 0.02)
    a, twin, other, sure = doubtful(store, scores, ([1, 0], [1, 0.01], [0, 1], [1, 1]))
    waiting, _ = add(store, b"waits")
    # by doubt alone the twin would be second
    assert active(store) == [a, other, twin, sure, waiting.id]
    store.readings.save(said(a, finished=False), "anna")
    assert active(store)[0] == a  # begun is not read
    store.readings.save(said(a, "k2"), "anna")
    assert active(store) == [other, twin, sure, waiting.id, a]
    assert active(store, states=["read"]) == [a]
    assert active(store, states=["unread"], q=".png")[:4] == [other, twin, sure, waiting.id]


def test_the_worklist_is_counted_by_what_the_page_offers(store):
    assert store.images.counts_of() == dict.fromkeys(
        ("all", "unread", "waiting", "failed", "read"), 0
    )
    a, _ = doubtful(store, (0.5, 0.4), ([1, 0], [0, 1]))
    add(store, b"broken", "broken.png")
    claim = store.images.claim("w", ["m"])
    store.images.finish(claim, "w", None, {}, 0.1, first="m", reason="broken")
    add(store, b"waits", "waits.png")
    store.readings.save(said(a), "anna")
    counts = {"all": 4, "unread": 2, "waiting": 1, "failed": 1, "read": 1}
    assert store.images.counts_of() == counts
    states = {"unread": ["unread", "queued", "running", "done"], "waiting": ["queued", "running"]}
    for name, n in counts.items():
        listed = states.get(name, [] if name == "all" else [name])
        assert store.images.page(states=listed).total == n, name
    assert store.images.counts_of("broken")["all"] == 1


def test_pages_of_what_teaches_most_are_parts_of_one_order(store, monkeypatch):
    from twinray.serving.store import teaching

    monkeypatch.setattr(teaching, "FIRST", 4)
    rng = np.random.default_rng(0)
    made = doubtful(store, rng.uniform(0.1, 0.9, 17), rng.normal(size=(17, 3)))
    for image in made[::5]:
        store.readings.save(said(image), "anna")
    whole = active(store)
    assert sorted(whole) == sorted(made)
    assert set(whole[-4:]) == set(made[::5])
    for size in (1, 3, 5, 16):
        pages = [active(store, size=size, page=n) for n in range(1, 17 // size + 2)]
        assert [one for page in pages for one in page] == whole
        assert active(store, size=size, page=99) == []


def test_another_model_has_its_own_order_and_takes_it_along_when_it_is_first(store):
    a, b = doubtful(store, (0.5, 0.1), ([1, 0], [0, 1]), models=("old",))
    store.images.serve([("old", "old", ["a"]), ("new", "new", ["a"])])
    for _ in range(2):
        claim = store.images.claim("w", ["old", "new"])
        boxes = [Box((0, 0, 4, 4), "a", 0.1 if claim.id == a else 0.5)]
        answers, features = {"new": boxes}, {"new": np.array([1.0, float(claim.id == a)])}
        assert store.images.finish(
            claim, "w", Facts(9, 9), answers, 0.1, first="old", features=features
        )
    assert (active(store), active(store, model="new")) == ([a, b], [b, a])
    store.images.serve([("new", "new", ["a"])])
    assert active(store) == [b, a]
    assert store.images.get(b).teach == pytest.approx(1.0)


def test_features_come_back_as_they_were_kept():
    kept = np.array([0.25, -1.0, 1 / 3])
    np.testing.assert_array_equal(from_texts([as_text(kept)]), kept.astype("<f2")[np.newaxis])


def test_doubts_of_an_earlier_version_are_worked_out_from_its_boxes(store):
    scores = [0.5, 0.3, 0.04, 1.0]
    a, _ = add(store)
    analysed(store, a, [Box((0, 0, 4, 4), "a", score) for score in scores])
    with store.database.engine.begin() as one:  # as version 2 left it
        before = one.exec_driver_sql("SELECT doubt FROM analyses").scalar_one()
        one.exec_driver_sql("UPDATE images SET teach = NULL")
        one.exec_driver_sql("ALTER TABLE models DROP COLUMN kind")  # and version 4 no classifiers
        one.exec_driver_sql("ALTER TABLE analyses DROP COLUMN labels")
        for table in ("slots", "studies"):  # and version 3 had no reader studies
            one.exec_driver_sql(f"DROP TABLE {table}")
        one.exec_driver_sql("DROP INDEX ix_readings_slot")
        one.exec_driver_sql("ALTER TABLE readings DROP COLUMN slot")
        one.exec_driver_sql("ALTER TABLE marks DROP COLUMN rating")
        one.exec_driver_sql("DROP INDEX ix_analyses_model_doubt")
        one.exec_driver_sql("ALTER TABLE analyses DROP COLUMN doubt")
        one.exec_driver_sql("ALTER TABLE analyses DROP COLUMN features")
        one.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    store.database.migrate()
    assert [one.kind for one in store.images.models()] == ["detector"]
    store.images.serve([("m", "m", ["a"])])
    assert (
        store.images.get(a.id).teach == pytest.approx(before) == pytest.approx(uncertainty(scores))
    )
    assert active(store) == [a.id]  # without features: by doubt
