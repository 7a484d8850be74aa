import math
import pickle

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from skmars.losses import (
    IGNORE_INDEX,
    LOSSES,
    boundary_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
    make_loss,
)

N, K, H, W = 3, 4, 7, 9
NAMES = sorted(LOSSES)
COMBINED = "cross_entropy+focal+dice+boundary"


# Each reference is the formula of its docstring, in float64, over flat arrays of labelled pixels:
# logits (P, K), one-hot truth (P, K), class weights (K,), sample weights (P,), phi (P, K).


def reference_cross_entropy(z, g, w, s, phi):
    return np.sum(s * np.sum(g * w * -log_softmax(z, 1), 1)) / np.sum(s)


def reference_focal(z, g, w, s, phi, gamma=2.0):
    p = np.sum(g * softmax(z, 1), 1)
    return np.sum(s * (g @ w) * (1 - p) ** gamma * -np.log(p)) / np.sum(s)


def reference_dice(z, g, w, s, phi, smooth=1.0):
    p, s = softmax(z, 1), s[:, None]
    dice = (2 * np.sum(s * p * g, 0) + smooth) / (np.sum(s * p, 0) + np.sum(s * g, 0) + smooth)
    return np.sum(w * (1 - dice)) / np.sum(w)


def reference_boundary(z, g, w, s, phi):
    return np.sum(s * np.sum(w * phi * softmax(z, 1), 1)) / np.sum(s)


REFERENCES = {
    "cross_entropy": reference_cross_entropy,
    "focal": reference_focal,
    "dice": reference_dice,
    "boundary": reference_boundary,
}


def brute_force_phi(mask, n_classes, ignore_index):
    """Signed distances of one image, by comparing each pixel with each other."""
    phi = np.ones((n_classes, *mask.shape))
    labelled = mask != ignore_index
    for c in range(n_classes):
        region, rest = labelled & (mask == c), labelled & (mask != c)
        if not region.any():
            continue
        for y, x in np.ndindex(*mask.shape):
            sign, to = (-1, rest) if region[y, x] else (1, region)
            far = [math.hypot(y - i, x - j) for i, j in np.argwhere(to)]
            phi[c, y, x] = sign * min(far, default=math.hypot(*mask.shape))
        phi[c] /= math.hypot(*mask.shape)
    return phi


def reference(name, logits, target, weight=None, ignore_index=None, sample_weight=None, **params):
    n_classes = logits.shape[1]
    z = logits.detach().double().numpy().transpose(0, 2, 3, 1)
    target = target.numpy()
    w = np.ones(n_classes) if weight is None else weight.double().numpy()
    s = np.ones(1) if sample_weight is None else sample_weight.double().numpy()
    s = np.broadcast_to(s.reshape(-1, 1, 1) if s.ndim == 1 else s, target.shape)
    phi = np.stack([brute_force_phi(mask, n_classes, ignore_index) for mask in target])
    keep = target != ignore_index
    g = target[keep][:, None] == np.arange(n_classes)
    phi = phi.transpose(0, 2, 3, 1)[keep]
    return REFERENCES[name](z[keep], g.astype(float), w, s[keep], phi, **params)


@pytest.fixture
def batch():
    """Blobs of classes 0..2; class 3 is absent, image 2 has one class."""
    rng = np.random.default_rng(0)
    target = np.kron(rng.integers(0, 3, size=(N, 3, 3)), np.ones((1, 3, 3), dtype=int))
    target[2] = 1
    logits = rng.normal(size=(N, K, H, W))
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(target[:, :H, :W])


@pytest.fixture
def ignoring(batch):
    logits, target = batch
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    return logits, target.masked_fill(mask, IGNORE_INDEX)


LARGEST = torch.finfo(torch.float32).max
CLASS_WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25])
IMAGE_WEIGHT = torch.tensor([0.5, 0.0, 3.0])
PIXEL_WEIGHT = torch.rand((N, H, W), generator=torch.Generator().manual_seed(1)) * 2


@pytest.mark.parametrize("weight", [None, CLASS_WEIGHT])
@pytest.mark.parametrize("sample_weight", [None, IMAGE_WEIGHT, PIXEL_WEIGHT])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formula(name, weight, sample_weight, ignoring):
    kwargs = {
        "weight": weight,
        "sample_weight": sample_weight,
        "ignore_index": IGNORE_INDEX,
    }
    got = LOSSES[name](*ignoring, **kwargs)
    assert got.shape == ()
    assert got.item() == pytest.approx(reference(name, *ignoring, **kwargs), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formula_where_nothing_is_ignored(name, batch):
    assert LOSSES[name](*batch).item() == pytest.approx(reference(name, *batch), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "params"),
    [("focal", {"gamma": 0.3}), ("focal", {"gamma": 5}), ("dice", {"smooth": 0.0})],
)
def test_equals_the_formula_with_parameters(name, params, ignoring):
    got = LOSSES[name](*ignoring, ignore_index=IGNORE_INDEX, **params)
    expected = reference(name, *ignoring, ignore_index=IGNORE_INDEX, **params)
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [*NAMES, COMBINED])
def test_gradient(loss, ignoring):
    logits, target = ignoring
    logits = logits[:, :, :3, :3].double().requires_grad_()
    target = target[:, :3, :3]
    weights = {"weight": CLASS_WEIGHT, "sample_weight": PIXEL_WEIGHT[:, :3, :3]}

    def function(z):
        return make_loss(loss)(z, target, ignore_index=IGNORE_INDEX, **weights)

    assert torch.autograd.gradcheck(function, logits)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, LARGEST, math.inf, math.nan])
@pytest.mark.parametrize("loss", [*NAMES, COMBINED])
def test_ignored_pixels_have_no_effect_at_all(loss, value, ignoring):
    logits, target = ignoring
    ignored = (target == IGNORE_INDEX).unsqueeze(1).expand_as(logits)
    changed = logits.clone()
    changed[:, 0] = changed[:, 0].masked_fill(target == IGNORE_INDEX, -value)
    changed[:, 1] = changed[:, 1].masked_fill(target == IGNORE_INDEX, value)
    results = []
    for z in (logits, changed):
        z = z.clone().requires_grad_()
        out = make_loss(loss)(z, target, ignore_index=IGNORE_INDEX, weight=CLASS_WEIGHT)
        out.backward()
        results.append((out, z.grad))
    (before, grad_before), (after, grad_after) = results
    assert torch.equal(before, after)
    assert torch.equal(grad_before, grad_after)
    assert grad_after[~ignored].count_nonzero() > 0
    assert grad_after[ignored].count_nonzero() == 0


def test_ignore_index_may_be_a_class_number(batch):
    logits, target = batch
    moved = target.masked_fill(target == 1, IGNORE_INDEX)
    for loss in LOSSES.values():
        expected = loss(logits, moved, ignore_index=IGNORE_INDEX)
        assert torch.equal(loss(logits, target, ignore_index=1), expected)


@pytest.mark.parametrize("params", [{}, {"smooth": 0.0}])
@pytest.mark.parametrize("loss", [*NAMES, COMBINED])
def test_batch_without_labels_is_zero_with_zero_gradient(loss, params, batch):
    logits, target = batch
    if "dice" not in loss:
        params = {}
    logits = logits.requires_grad_()
    ignored = torch.full_like(target, IGNORE_INDEX)
    for kwargs in ({}, {"sample_weight": PIXEL_WEIGHT, "weight": CLASS_WEIGHT}):
        out = make_loss(loss, **params)(logits, ignored, ignore_index=IGNORE_INDEX, **kwargs)
        assert out.item() == 0.0
        (grad,) = torch.autograd.grad(out, logits)
        assert torch.equal(grad, torch.zeros_like(logits))


@pytest.mark.parametrize("loss", [*NAMES, COMBINED])
def test_sample_weights_of_zero_are_zero(loss, batch):
    assert make_loss(loss)(*batch, sample_weight=torch.zeros(N)).item() == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_image_weight_is_repetition(name, batch):
    logits, target = batch
    times = torch.tensor([2, 0, 3])
    repeated = LOSSES[name](logits.repeat_interleave(times, 0), target.repeat_interleave(times, 0))
    weighted = LOSSES[name](logits, target, sample_weight=times.float())
    assert weighted.item() == pytest.approx(repeated.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice"])
def test_pixel_weight_of_zero_is_leaving_out(name, ignoring):
    # Not so for the boundary loss: a pixel without weight still says where the boundary is.
    logits, target = ignoring
    left_out = LOSSES[name](logits, target, ignore_index=IGNORE_INDEX)
    labelled = target != IGNORE_INDEX
    weighted = LOSSES[name](logits, target.clamp(min=0), sample_weight=labelled)
    assert weighted.item() == pytest.approx(left_out.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_image_order_does_not_matter(name, batch):
    logits, target = batch
    order = [2, 0, 1]
    got = LOSSES[name](logits[order], target[order], sample_weight=IMAGE_WEIGHT[order])
    expected = LOSSES[name](logits, target, sample_weight=IMAGE_WEIGHT)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_class_order_does_not_matter(name, batch):
    logits, target = batch
    order = torch.tensor([3, 1, 0, 2])  # new class i is old class order[i]
    got = LOSSES[name](logits[:, order], order.argsort()[target], weight=CLASS_WEIGHT[order])
    expected = LOSSES[name](logits, target, weight=CLASS_WEIGHT)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_cross_entropy_divides_by_pixels_not_by_class_weights(batch):
    logits, target = batch
    ours = cross_entropy(logits, target, weight=CLASS_WEIGHT)
    theirs = torch.nn.functional.cross_entropy(logits, target, weight=CLASS_WEIGHT)
    assert ours.item() == pytest.approx(theirs.item() * CLASS_WEIGHT[target].mean().item())
    assert cross_entropy(logits, target, weight=2 * CLASS_WEIGHT).item() == 2 * ours.item()


def test_focal_with_gamma_zero_is_cross_entropy(ignoring):
    kwargs = {"weight": CLASS_WEIGHT, "ignore_index": IGNORE_INDEX, "sample_weight": PIXEL_WEIGHT}
    gradients = []
    for loss in (make_loss("focal", gamma=0), cross_entropy):
        logits = ignoring[0].clone().requires_grad_()
        out = loss(logits, ignoring[1], **kwargs)
        gradients.append((out, torch.autograd.grad(out, logits)[0]))
    torch.testing.assert_close(*gradients)


def test_focal_turns_to_hard_pixels():
    easy, hard = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    shares = [
        focal_loss(hard.view(1, 2, 1, 1), target, gamma=gamma)
        / focal_loss(easy.view(1, 2, 1, 1), target, gamma=gamma)
        for gamma in (0, 0.5, 2)
    ]
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("gamma", [0, 0.01, 0.5, 1, 2])
@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4])
def test_focal_gradient_is_finite_for_certain_pixels(gamma, scale):
    target = torch.tensor([[[0, 1]]])
    logits = torch.tensor([[[[scale, scale]], [[0.0, 0.0]]]]).requires_grad_()
    loss = focal_loss(logits, target, gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 0, 1] > 0


def test_dice_charges_false_positives_of_an_absent_class():
    target = torch.tensor([[[0, 0, 1, 1]]])
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 20.0
    wrong = right.clone()
    wrong[0, 2, 0, 0] = 40.0  # class 2, which no pixel has
    weight = torch.tensor([0.0, 0.0, 1.0])
    assert dice_loss(right, target, weight=weight).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(wrong, target, weight=weight).item() == pytest.approx(0.5, abs=1e-6)


def test_dice_without_smoothing_of_a_class_nowhere():
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    logits = torch.tensor([0.0, -1e4]).view(1, 2, 1, 1).repeat(1, 1, 2, 2).requires_grad_()
    loss = dice_loss(logits, target, smooth=0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.isfinite().all()


def test_dice_is_over_the_batch_not_the_mean_of_images(batch):
    logits, target = batch
    single = [dice_loss(logits[i : i + 1], target[i : i + 1], smooth=0.0) for i in range(N)]
    whole = dice_loss(logits, target, smooth=0.0)
    assert abs(whole - torch.stack(single).mean()) > 1e-3


def one_hot_logits(mask, n_classes):
    return torch.nn.functional.one_hot(mask, n_classes).movedim(-1, 1) * 50.0


def test_boundary_prefers_the_right_mask():
    target = torch.zeros(1, 12, 12, dtype=torch.int64)
    target[:, 3:9, 3:9] = 1
    values = [
        boundary_loss(one_hot_logits(target.roll(shift, 2), 2), target).item()
        for shift in (0, 1, 2, 3)
    ]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_boundary_bounds():
    target = torch.ones(1, 5, 5, dtype=torch.int64)
    assert boundary_loss(one_hot_logits(target, 3), target).item() == pytest.approx(-1)
    assert boundary_loss(one_hot_logits(target + 1, 3), target).item() == pytest.approx(1)
    assert boundary_loss(one_hot_logits(target * 0, 3), target).item() == pytest.approx(1)


def test_boundary_takes_ignored_pixels_for_neither_side():
    target = torch.tensor([[[0, 0, IGNORE_INDEX, IGNORE_INDEX, 1, 1]]])
    only_first = torch.zeros(target.shape)
    only_first[..., 1] = 1.0
    loss = boundary_loss(
        one_hot_logits(target.clamp(min=0), 2),
        target,
        ignore_index=IGNORE_INDEX,
        sample_weight=only_first,
    )
    assert loss.item() == pytest.approx(-3 / math.hypot(1, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name, dtype, batch):
    logits, target = batch
    low = logits.to(dtype)
    loss = LOSSES[name](low, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, LOSSES[name](low.float(), target))
    low.requires_grad_()
    LOSSES[name](low, target).backward()
    assert low.grad.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_not_changed(name, ignoring):
    before = [tensor.clone() for tensor in (*ignoring, CLASS_WEIGHT, PIXEL_WEIGHT)]
    LOSSES[name](
        *ignoring, weight=CLASS_WEIGHT, ignore_index=IGNORE_INDEX, sample_weight=PIXEL_WEIGHT
    )
    after = [*ignoring, CLASS_WEIGHT, PIXEL_WEIGHT]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_sum_of_terms(ignoring):
    kwargs = {"weight": CLASS_WEIGHT, "ignore_index": IGNORE_INDEX, "sample_weight": IMAGE_WEIGHT}
    loss = make_loss(
        "focal + dice+boundary", gamma=1.5, smooth=3.0, dice_weight=0.5, boundary_weight=0.1
    )
    expected = (
        focal_loss(*ignoring, gamma=1.5, **kwargs)
        + 0.5 * dice_loss(*ignoring, smooth=3.0, **kwargs)
        + 0.1 * boundary_loss(*ignoring, **kwargs)
    )
    torch.testing.assert_close(loss(*ignoring, **kwargs), expected)


@pytest.mark.parametrize("name", NAMES)
def test_one_name_is_the_function(name, batch):
    assert torch.equal(make_loss(name)(*batch), LOSSES[name](*batch))


def test_a_new_loss_is_one_entry(monkeypatch, batch):
    def scaled(logits, target, *, weight=None, ignore_index=None, sample_weight=None, scale=1.0):
        return scale * logits.square().mean()

    monkeypatch.setitem(LOSSES, "scaled", scaled)
    expected = 3 * batch[0].square().mean() + dice_loss(*batch)
    got = make_loss("dice+scaled", scale=3.0)(*batch)
    torch.testing.assert_close(got, expected)


def test_pickle(batch):
    loss = make_loss("focal+dice", gamma=1.0, smooth=0.5, focal_weight=2)
    copy = pickle.loads(pickle.dumps(loss))
    assert copy == loss
    assert torch.equal(copy(*batch), loss(*batch))


@pytest.mark.parametrize(
    ("loss", "params", "match"),
    [
        ("lovasz", {}, "cross_entropy.*focal.*dice.*boundary.*lovasz"),
        ("focal+", {}, "must be one of"),
        ("", {}, "must be one of"),
        (None, {}, "must be one of.*None"),
        ("focal+focal", {}, "named once"),
        ("dice", {"gamma": 1.0}, r"takes the parameters \['dice_weight', 'smooth'\].*gamma"),
        ("dice", {"focal_weight": 1.0}, "focal_weight"),
        ("focal", {"weight": None}, "takes the parameters"),
        ("focal", {"gamma": -0.1}, "gamma must be .* at least 0"),
        ("focal", {"gamma": math.inf}, "gamma"),
        ("focal", {"gamma": "2"}, "gamma"),
        ("dice+focal", {"smooth": -1}, "smooth must be"),
        ("dice", {"smooth": math.nan}, "smooth"),
        ("dice", {"dice_weight": -1}, "dice_weight must be"),
    ],
)
def test_make_loss_refuses(loss, params, match):
    with pytest.raises(ValueError, match=match):
        make_loss(loss, **params)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"logits": torch.zeros(N, K, H)}, "logits must be"),
        ({"logits": torch.zeros(N, K, H, W, dtype=torch.int64)}, "logits must be floating"),
        ({"target": torch.zeros(N, H, W + 1, dtype=torch.int64)}, "target must be int64 of shape"),
        ({"target": torch.zeros(N, H, W)}, "target must be int64"),
        ({"target": torch.full((N, H, W), K)}, r"target must hold 0\.\.3"),
        ({"target": torch.full((N, H, W), -1)}, r"target must hold 0\.\.3"),
        ({"weight": torch.ones(K + 1)}, r"weight must be of shape \(4,\)"),
        ({"sample_weight": torch.ones(N + 1)}, "sample_weight must be of shape"),
        ({"sample_weight": torch.ones(N, 1, 1)}, "sample_weight must be of shape"),
        ({"sample_weight": torch.tensor([1.0, -1.0, 1.0])}, "negative"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_losses_refuse(name, change, match, batch):
    arguments = dict(zip(("logits", "target"), batch, strict=True)) | change
    with pytest.raises(ValueError, match=match):
        LOSSES[name](**arguments)


@pytest.mark.parametrize(
    ("loss", "params"), [(focal_loss, {"gamma": -1}), (dice_loss, {"smooth": -1})]
)
def test_losses_check_their_own_parameters(loss, params, batch):
    with pytest.raises(ValueError, match="at least 0"):
        loss(*batch, **params)


def test_dice_of_next_to_no_weight_has_gradients():
    logits = torch.tensor([[[[0.0]], [[-70.0]]]], requires_grad=True)
    weight = torch.tensor([1e-10])
    dice_loss(logits, torch.tensor([[[0]]]), smooth=0.0, sample_weight=weight).backward()
    assert torch.isfinite(logits.grad).all()
