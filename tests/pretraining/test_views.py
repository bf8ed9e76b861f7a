import math

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomResizedCrop

from twinray.pretraining.views import (
    ViewMaker,
    ViewOptions,
    ViewParameters,
    _brightness,
    _contrast,
    _hue,
    _luma,
    _saturation,
    blur,
    crop_resize,
    draw_crops,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int = 6, c: int = 1, h: int = 48, w: int = 40) -> torch.Tensor:
    return torch.rand(b, c, h, w, generator=generator(b + c))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_resize_is_torchvisions(size, channels):
    x = images(8, channels)
    crops = draw_crops(8, 48, 40, (0.08, 1.0), (3 / 4, 4 / 3), generator(3))
    flip = torch.tensor([True, False] * 4)
    got = crop_resize(x, crops, flip, size)
    for i, (top, left, height, width) in enumerate(crops.tolist()):
        want = TF.resized_crop(
            x[i], top, left, height, width, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        want = TF.horizontal_flip(want) if flip[i] else want
        torch.testing.assert_close(got[i], want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_torchvisions(sigma):
    x = images(2, 3, 32, 32)
    got = blur(x, torch.tensor([sigma, 0.0]), 6.0)
    torch.testing.assert_close(got[0], TF.gaussian_blur(x[0], [13, 13], [sigma, sigma]), atol=1e-5, rtol=0)
    torch.testing.assert_close(got[1], x[1], atol=1e-6, rtol=0)


def test_colour_operations_are_torchvisions():
    x = images(1, 3)
    for factor in (0.6, 1.0, 1.4):
        f = torch.tensor([factor])
        torch.testing.assert_close(_brightness(x, f)[0], TF.adjust_brightness(x[0], factor), atol=1e-5, rtol=0)
        torch.testing.assert_close(_contrast(x, f)[0], TF.adjust_contrast(x[0], factor), atol=1e-3, rtol=0)
        torch.testing.assert_close(_saturation(x, f)[0], TF.adjust_saturation(x[0], factor), atol=1e-3, rtol=0)
    for turns in (-0.1, 0.0, 0.1):
        torch.testing.assert_close(_hue(x, torch.tensor([turns]))[0], TF.adjust_hue(x[0], turns), atol=1e-4, rtol=0)
    torch.testing.assert_close(_luma(x)[0], TF.rgb_to_grayscale(x[0]), atol=1e-3, rtol=0)


def test_a_grey_image_and_its_rgb_copy_give_the_same_view():
    grey = images(16)
    maker = ViewMaker(24, ViewOptions(solarise=0.5))
    p = maker.draw(16, 48, 40, generator(1))
    one, three = maker.apply(grey, p), maker.apply(grey.expand(-1, 3, -1, -1), p)
    # saturation, hue and greyscale change nothing on grey pixels; a pixel at the solarising threshold may go either way
    close = (three - one).abs() < 2e-3
    assert close.float().mean() > 0.995
    assert one.shape == (16, 1, 24, 24)


def test_crops_follow_torchvisions_distribution():
    n, area, ratio = 4000, (0.08, 1.0), (3 / 4, 4 / 3)
    ours = draw_crops(n, 256, 256, area, ratio, generator(5)).float()
    torch.manual_seed(0)
    maker, frame = RandomResizedCrop(10, area, ratio), torch.zeros(1, 256, 256)
    theirs = torch.tensor(
        [[p["top"], p["left"], p["height"], p["width"]] for p in (maker.make_params([frame]) for _ in range(n))]
    ).float()
    for get in (lambda t: t[:, 2] * t[:, 3], lambda t: (t[:, 3] / t[:, 2]).log(), lambda t: t[:, 0], lambda t: t[:, 1]):
        a, b = get(ours), get(theirs)
        spread = b.std()
        assert abs(a.mean() - b.mean()) < 5 * spread / math.sqrt(n)
        assert abs(a.std() / spread - 1) < 0.06


def test_crops_stay_inside_and_fall_back_to_the_centre():
    crops = draw_crops(200, 30, 300, (0.9, 1.0), (3 / 4, 4 / 3), generator())
    assert (crops[:, 0] + crops[:, 2] <= 30).all()
    assert (crops[:, 1] + crops[:, 3] <= 300).all()
    assert (crops == torch.tensor([0, 130, 30, 40])).all()  # nothing that large fits: the central 40 x 30


def test_every_image_draws_its_own_and_the_seed_decides():
    x = images(1).expand(32, -1, -1, -1)
    maker = ViewMaker(24)
    first, again, other = maker(x, generator(1)), maker(x, generator(1)), maker(x, generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({v.numpy().tobytes() for v in first}) == 32
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-5


def test_rates_of_the_switches():
    options = ViewOptions(flip=0.3, blur=0.1, solarise=0.2, jitter=0.8, grey=0.2)
    p = ViewMaker(32, options).draw(20_000, 64, 64, generator())
    rates = {
        "flip": (p.flip, 0.3),
        "blur": (p.sigma > 0, 0.1),
        "solarise": (p.solarise, 0.2),
        "jitter": ((p.jitter != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(dim=1), 0.8),
        "grey": (p.grey, 0.2),
    }
    for name, (drawn, rate) in rates.items():
        assert abs(float(drawn.float().mean()) - rate) < 0.015, name


def test_everything_can_be_switched_off():
    x = images(4, 1, 32, 32)
    off = ViewOptions((1.0, 1.0), (1.0, 1.0), 0, 0, 0, 0, 0, 0, 0, 0, (0.1, 2.0), 0)
    torch.testing.assert_close(ViewMaker(32, off)(x, generator()), x, atol=1e-6, rtol=0)


def test_solarise_inverts_the_bright_half():
    x = images(2, 1, 16, 16)
    base = ViewOptions((1.0, 1.0), (1.0, 1.0), 0, 0, 0, 0, 0, 0, 0, 0, (0.1, 2.0), 1.0)
    torch.testing.assert_close(ViewMaker(16, base)(x, generator()), torch.where(x >= 0.5, 1 - x, x), atol=1e-6, rtol=0)


def test_parameters_do_not_depend_on_the_image_content():
    maker = ViewMaker(24)
    a, b = (maker.draw(8, 48, 40, generator(9)) for _ in range(2))
    assert isinstance(a, ViewParameters)
    for name in vars(a):
        assert torch.equal(getattr(a, name), getattr(b, name))
