"""Reader studies: Van Dyke's data, as RJafroc and the Iowa program analyse it, and a toy example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from twinray.errors import InputError
from twinray.evaluation.readers.afroc import Ratings, figure_of_merit, leave_one_out
from twinray.evaluation.readers.mrmc import analyse, components

# Van Dyke's 114 patients, RJafroc's dataset02: by arm and reader the ratings of 69 patients without and 45
# with an aortic dissection. What both programs print of them stands in the tests below.
VAN_DYKE = (
    (
        "122151111111411111111131311214111113121211233131133111111221111332111|555545554555434245555555154454553555115554451",
        "232222222322522232222222422223222222222222222222222222222432232222222|535555542555442225555555243354552425225555352",
        "222235112242422232221232411322112224121412112222223211211221151421212|545555555555542355555555252255552555225555552",
        "111111311111111111112111211112111111111111111111331111111111111311111|555555555555555155555555554544553555125555555",
        "351211112221211122113221111211211231221113332111211111111341231212113|525255551545452235555554144322151515115553552",
    ),
    (
        "333222223213122222211111421312214323123122233111333113412421241442111|535555554555544335555555355355554455535555551",
        "322222223222222122221222322222212212222231223222222222322322222222122|535555552555344245455545252355532425525555552",
        "242222322211132222121121411512112122212221132111233113221232341242121|525555555555354145555555253355543555534555551",
        "221111312111122111211111321212111122112111112121212211111212111323211|545555554555455555555555455445555555535555555",
        "223122221222111222122212322321212222112121132122332122221222231233111|525455555455343335555555251332532545533555553",
    ),
)
TOY = (
    ("112314|345253", "211324|424352", "121143|335145"),
    ("111213|455354", "112215|545453", "131132|345225"),
)


def study(rows):
    """(arms, readers) areas under the ROC curves, and (arms, readers, images) without each image."""
    made = []
    for arm in rows:
        for row in arm:
            normal, ill = (np.array(list(part), dtype=float) for part in row.split("|"))
            n = len(normal)
            false = np.concatenate([normal, np.full(len(ill), -np.inf)])
            made.append(Ratings(false, n + np.arange(len(ill)), ill))
    shape = (len(rows), len(rows[0]))
    theta = np.array([figure_of_merit(r, "wafroc")[0] for r in made]).reshape(shape)
    return theta, np.array([leave_one_out(r, "wafroc") for r in made]).reshape(*shape, -1)


def test_van_dyke_components():
    theta, left_out = study(VAN_DYKE)
    np.testing.assert_allclose(theta.mean(axis=1), [0.89703704, 0.94083736], atol=5e-9)
    parts = components(theta, left_out)
    printed = [0.00080229, 0.00034661, 0.00034407, 0.00023903, 0.00479617, 0.00055103]
    ours = [parts.var, parts.cov1, parts.cov2, parts.cov3, parts.arms, parts.arms_by_readers]
    np.testing.assert_allclose(ours, printed, atol=6e-9)
    np.testing.assert_allclose(
        [parts.readers, parts.readers_by_arms], [0.00153500, 0.00020040], atol=6e-9
    )


# statistic, degrees of freedom, p, difference, its error, its interval, then each arm's error and interval
PRINTED = {
    "random-readers": (4.45632, 15.2597, 0.051666, 0.02074862, (-0.087959, 0.000359)),
    "fixed-readers": (5.47595, np.inf, 0.0193, 0.01872, (-0.08049, -0.00711)),
    "fixed-images": (8.70, 4, 0.0420, 0.01485, (-0.08502, -0.00258)),
}
SINGLE = {
    "random-readers": (
        (0.03317360, 12.74, 0.82522360, 0.96885048),
        (0.02156637, 12.71, 0.89413783, 0.98753689),
    ),
    "fixed-readers": (
        (0.02428971, np.inf, 0.84943008, 0.94464399),
        (0.01677632, np.inf, 0.90795637, 0.97371835),
    ),
    "fixed-images": (
        (0.02482994, 4, 0.82809808, 0.96597599),
        (0.01615303, 4, 0.89598936, 0.98568536),
    ),
}


@pytest.mark.parametrize("effects", PRINTED)
def test_van_dyke_as_both_programs_print_it(effects):
    statistic, freedom, p, error, ends = PRINTED[effects]
    found = analyse(*study(VAN_DYKE), effects)
    assert found.statistic == pytest.approx(
        statistic, abs=5e-3 if effects == "fixed-images" else 6e-6
    )
    assert found.freedom[0] == 1 and found.freedom[1] == pytest.approx(freedom, rel=1e-4)
    assert found.p == pytest.approx(p, abs=5e-5)
    difference = found.differences[0, 1]
    assert difference.value == pytest.approx(-0.04380032, abs=5e-9)
    assert difference.error == pytest.approx(error, abs=6e-6)
    assert (difference.low, difference.high) == pytest.approx(ends, abs=6e-6)
    assert difference.p == pytest.approx(p, abs=5e-5)
    for arm, (of_arm, df, low, high) in zip(found.arms, SINGLE[effects], strict=True):
        assert arm.error == pytest.approx(of_arm, abs=6e-9)
        assert arm.freedom == pytest.approx(df, abs=5e-3)
        assert (arm.low, arm.high) == pytest.approx((low, high), abs=6e-9)


def test_a_toy_example():
    theta, left_out = study(TOY)
    np.testing.assert_allclose(
        theta, [[0.833333, 0.763889, 0.777778], [0.986111, 0.875, 0.833333]], atol=5e-7
    )
    parts = components(theta, left_out)
    np.testing.assert_allclose(
        [parts.var, parts.cov1, parts.cov2, parts.cov3, parts.arms, parts.arms_by_readers],
        [0.015405093, 0.008996914, 0.004088220, 0.002079475, 0.017007459, 0.001189558],
        atol=5e-10,
    )
    random, fixed = (analyse(theta, left_out, e) for e in ("random-readers", "fixed-readers"))
    assert random.statistic == pytest.approx(2.356977, abs=5e-7)
    assert random.freedom[1] == pytest.approx(73.59140, abs=5e-6)
    assert random.p == pytest.approx(0.129012, abs=5e-7)
    assert random.differences[0, 1].error == pytest.approx(0.069357971, abs=5e-10)
    assert fixed.differences[0, 1].error == pytest.approx(0.083369334, abs=5e-10)
    assert fixed.p == pytest.approx(0.201522, abs=5e-7)


def test_images_held_fixed_is_the_paired_t_test():
    theta, left_out = study(VAN_DYKE)
    assert analyse(theta, left_out, "fixed-images").p == pytest.approx(
        ttest_rel(theta[0], theta[1]).pvalue
    )


def test_readers_alike_in_both_arms_leave_the_normal_law():
    theta, left_out = study(VAN_DYKE)
    shifted = np.stack([theta[0], theta[0] + 0.01])
    found = analyse(shifted, np.stack([left_out[0], left_out[1]]), "random-readers")
    assert found.freedom[1] > 1e6 and 0 < found.p < 1


def test_one_reader_is_no_sample_of_readers():
    theta, left_out = study(VAN_DYKE)
    with pytest.raises(InputError, match="two readers or more"):
        analyse(theta[:, :1], left_out[:, :1])
    alone = analyse(theta[:, :1], left_out[:, :1], "fixed-readers")
    # printed for each reader alone
    assert alone.differences[0, 1].error == pytest.approx(0.02551, abs=5e-6)
    assert alone.p == pytest.approx(0.2693, abs=5e-5)
    with pytest.raises(InputError, match="does not exist"):
        analyse(theta * np.nan, left_out)
