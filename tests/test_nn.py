import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from skmars import MarsSegmenter
from skmars.nn import ASPP, SKIPS, AttentionASPPUNet, AttentionGate, fold_batch_norms

SIZES = [(1, 1), (1, 7), (5, 3), (50, 77), (64, 128)]

# Each differs from the defaults below by one switch.
DEFAULTS = {
    "depth": 2,
    "base_channels": 4,
    "patch_size": 1,
    "block": "residual",
    "skip": "concat",
    "attention": True,
    "aspp": True,
    "dilation_rates": (1, 2, 4),
    "dropout": 0.0,
}
SWITCHES = [
    {"depth": 3},
    {"base_channels": 5},
    {"patch_size": 2},
    {"block": "plain"},
    {"skip": "add"},
    {"skip": "fusion"},
    {"attention": False},
    {"aspp": False},
    {"dilation_rates": (1, 2, 3)},
    {"dilation_rates": (1, 2)},
]


def make_net(seed=0, **params):
    torch.manual_seed(seed)
    return AttentionASPPUNet(1, 5, **{**DEFAULTS, **params})


def make_images(n=2, height=32, width=48, channels=1, seed=0):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def count(net, *, trainable=False):
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not trainable)


def state_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def train_steps(net, images, n_steps=3):
    target = torch.arange(images[:, 0].numel()).reshape(images[:, 0].shape) % 5
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), target).backward()
        optimizer.step()


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "patch_size"), [(1, 1), (3, 1), (2, 2)])
def test_any_size_comes_out_as_it_went_in(depth, size, n, patch_size):
    net = make_net(depth=depth, base_channels=2, patch_size=patch_size)
    images = make_images(n, *size)
    for mode in (True, False):
        logits = net.train(mode)(images)
        assert logits.shape == (n, 5, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("skip", sorted(SKIPS))
@pytest.mark.parametrize("attention", [True, False])
def test_odd_sizes_pass_every_skip(skip, attention):
    net = make_net(depth=3, skip=skip, attention=attention)
    assert net(make_images(2, 13, 11)).shape == (2, 5, 13, 11)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_patches_are_the_squares_that_a_strided_convolution_sees(size):
    net = make_net(patch_size=2, block="plain").eval()
    patches, images = [], make_images(2, *size)
    net.encoder[0].register_forward_pre_hook(lambda _, args: patches.append(args[0]))
    net(images)
    # What the squares lack at the lower and right end repeats the last row and column.
    rows, columns = (np.minimum(np.arange(side + side % 2), side - 1) for side in size)
    filled = images[:, :, rows][..., columns]
    squares = [filled[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    assert torch.equal(patches[0], torch.cat(squares, dim=1))


@pytest.mark.parametrize("patch_size", [1, 2])
def test_channels_and_classes_are_as_asked_for(patch_size):
    net = AttentionASPPUNet(3, 7, **{**DEFAULTS, "patch_size": patch_size})
    assert net(make_images(channels=3)).shape == (2, 7, 32, 48)


def test_training_on_a_single_pixel_changes_no_running_statistics_to_nan():
    net = make_net()
    train_steps(net, make_images(1, 1, 1))
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_switch_changes_the_function(switch):
    images = make_images(1, 64, 64)
    before, after = make_net().eval(), make_net(**switch).eval()
    same_shapes = [p.shape for p in before.parameters()] == [p.shape for p in after.parameters()]
    if same_shapes:
        # The difference shall not be one of random numbers.
        after.load_state_dict(before.state_dict())
    else:
        assert count(before) != count(after)
    assert (before(images) - after(images)).abs().max() > 1e-3


def test_dropout_acts_in_training_only():
    images = make_images()
    without, with_dropout = make_net(), make_net(dropout=0.5)
    assert not torch.equal(without(images), with_dropout(images))
    assert not torch.equal(with_dropout(images), with_dropout(images))
    with_dropout.load_state_dict(without.state_dict())
    assert torch.equal(without.eval()(images), with_dropout.eval()(images))


def test_dropout_drops_whole_channels_at_its_rate():
    net = make_net(base_channels=64, depth=2, dropout=0.25)
    drops = [module for module in net.modules() if isinstance(module, nn.Dropout2d)]
    assert len(drops) == 5  # a block each: two down, bottleneck, two up
    shares = []
    for module in drops:
        kept = module(torch.ones(64, 64, 3, 3)).flatten(2)
        assert torch.equal(kept.amin(2), kept.amax(2))
        shares.append((kept[..., 0] == 0).float().mean())
    assert torch.stack(shares).mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("switch", [*SWITCHES, {"dropout": 0.3}], ids=str)
def test_every_switch_reaches_the_net_of_the_segmenter(switch, terrain):
    params = {**DEFAULTS, **switch}
    segmenter = MarsSegmenter(
        **params, max_epochs=1, precision="float32", tta=False, random_state=0, n_threads=1
    )
    X, y = terrain[0][:6], terrain[1][:6]
    segmenter.fit(X, y)
    reference = AttentionASPPUNet(1, len(segmenter.classes_), **params)
    reference.load_state_dict(segmenter.net_.module_.state_dict())
    assert segmenter.n_parameters_ == count(reference)
    scaled = torch.from_numpy((X - segmenter.mean_) / segmenter.scale_).float().unsqueeze(1)
    with torch.no_grad():
        expected = reference.eval()(scaled).softmax(dim=1).numpy()
    np.testing.assert_allclose(segmenter.predict_proba(X), expected, atol=1e-4)
    rates = {m.p for m in segmenter.net_.module_.modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {params["dropout"]}


REPORT = {"base_channels": 32, "patch_size": 1, "block": "plain"}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"depth": 2, "attention": False, "aspp": False}, 436_005),
        ({"depth": 3, "attention": False, "aspp": False}, 1_797_541),
        ({"depth": 3, "attention": False}, 2_847_653),
        ({"depth": 3}, 2_880_136),
    ],
    ids=["U-Net of 2 blocks", "U-Net of 3 blocks", "with ASPP", "with ASPP and attention"],
)
def test_parameter_counts_of_the_reports_table_1(params, expected):
    net = AttentionASPPUNet(1, 5, **REPORT, **params)
    assert count(net) == expected
    assert count(net, trainable=True) == expected


def test_parameter_count_of_the_reports_fine_tuning():
    net = AttentionASPPUNet(1, 5, **REPORT, depth=3).freeze("encoder")
    assert count(net) == 2_880_136
    assert count(net, trainable=True) == 2_593_256


@pytest.mark.parametrize("block", ["residual", "plain"])
def test_convolutions_have_he_initialisation(block):
    net = make_net(depth=3, base_channels=16, block=block)
    n_checked = 0
    for module in net.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.bias is not None:
            assert not module.bias.any()
        weight = module.weight.detach()
        if weight.numel() < 1000:
            continue
        expected = math.sqrt(2 / weight[0].numel())
        # Five standard errors of a standard deviation and of a mean.
        assert weight.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean()) < 5 * expected / math.sqrt(weight.numel())
        n_checked += 1
    assert n_checked > 10


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_attention_coefficients_are_one_share_a_place(size):
    torch.manual_seed(0)
    gate_size = [math.ceil(side / 2) for side in size]
    attention = AttentionGate(6, 12)
    skip, gate = torch.randn(3, 6, *size), torch.randn(3, 12, *gate_size)
    alpha = attention.coefficients(skip, gate)
    assert alpha.shape == (3, 1, *size)
    assert alpha.min() > 0
    assert alpha.max() < 1
    assert alpha.std() > 0
    torch.testing.assert_close(attention(skip, gate), alpha * skip)


def test_attention_depends_on_skip_and_on_gate():
    torch.manual_seed(0)
    attention = AttentionGate(6, 12)
    skip, gate = torch.randn(1, 6, 8, 8), torch.randn(1, 12, 4, 4)
    alpha = attention.coefficients(skip, gate)
    assert not torch.equal(alpha, attention.coefficients(-skip, gate))
    assert not torch.equal(alpha, attention.coefficients(skip, -gate))


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_aspp_reaches_as_far_as_its_rate(rate):
    torch.manual_seed(0)
    aspp = ASPP(8, dilation_rates=[rate]).double().eval()
    x = torch.randn(1, 8, 15, 15, dtype=torch.float64, requires_grad=True)
    aspp(x)[0, :, 7, 7].square().sum().backward()
    reached = {tuple(place) for place in x.grad[0].abs().sum(0).nonzero().tolist()}
    assert reached == set(itertools.product((7 - rate, 7, 7 + rate), repeat=2))


def test_skips_join_what_their_names_say():
    torch.manual_seed(0)
    skip, up = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    assert torch.equal(SKIPS["concat"](4)(skip, up), torch.cat([skip, up], dim=1))
    assert torch.equal(SKIPS["add"](4)(skip, up), skip + up)
    fusion = SKIPS["fusion"](4)
    torch.testing.assert_close(fusion(skip, up), skip + up)
    nn.init.constant_(fusion.balance, 50.0)
    torch.testing.assert_close(fusion(skip, up), 2 * skip)
    assert fusion.balance.requires_grad


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        ("encoder", ["encoder"]),
        ("encoder+bottleneck", ["encoder", "bottleneck"]),
        ("decoder", ["decoder"]),
    ],
)
def test_frozen_parts_keep_weights_and_statistics_to_the_bit(parts, frozen):
    net = make_net(dropout=0.5).freeze(parts).train()
    before = state_of(net)
    train_steps(net, make_images())
    after = state_of(net)
    for name, value in before.items():
        is_frozen = name.split(".")[0] in frozen
        assert torch.equal(value, after[name]) == is_frozen, name
    for name, parameter in net.named_parameters():
        is_frozen = name.split(".")[0] in frozen
        assert parameter.requires_grad != is_frozen
        assert (parameter.grad is None) == is_frozen


def test_frozen_parts_compute_as_in_evaluation():
    net = make_net(dropout=0.5)
    train_steps(net, make_images())
    net.freeze("encoder").train()
    images = make_images(seed=1)
    features = net.encoder[0](images)
    assert torch.equal(features, net.encoder[0](images))
    assert torch.equal(features, net.eval().encoder[0](images))


def test_unfreezing_trains_everything_again():
    net = make_net().freeze("encoder+bottleneck").train()
    net.freeze(None)
    assert net.frozen == ()
    assert all(module.training for module in net.modules())
    before = state_of(net)
    train_steps(net, make_images())
    assert not any(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_freezing_another_part_frees_the_first():
    net = make_net().freeze("encoder").freeze("decoder")
    assert all(p.requires_grad for p in net.encoder.parameters())
    assert not any(p.requires_grad for p in net.decoder.parameters())


def test_freezing_does_not_switch_the_mode():
    assert not any(module.training for module in make_net().eval().freeze("encoder").modules())


@pytest.mark.parametrize("block", ["residual", "plain"])
@pytest.mark.parametrize("skip", sorted(SKIPS))
def test_gradient_flows_to_every_parameter(block, skip):
    net = make_net(depth=3, base_channels=8, block=block, skip=skip)
    net(make_images(4, 64, 64)).square().sum().backward()
    silent = [
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("depth", "size", "margin"), [(2, 136, 56), (3, 240, 112)], ids=["depth 2", "depth 3"]
)
@pytest.mark.parametrize("switch", [{}, {"attention": False}, {"patch_size": 2}], ids=str)
def test_shift_of_the_input_shifts_the_output(depth, size, margin, switch):
    net = make_net(depth=depth, base_channels=8, **switch).double()
    images = make_images(1, size, size).double()
    with torch.no_grad():
        net(images)  # statistics other than 0 and 1
        net.eval()
        shift = 2**depth
        expected = net(images).roll((shift, 2 * shift), dims=(2, 3))
        actual = net(images.roll((shift, 2 * shift), dims=(2, 3)))
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(actual[inside], expected[inside], rtol=1e-9, atol=1e-9)
    assert actual[inside].std() > 1e-3


@pytest.mark.parametrize("params", [{}, {"skip": "fusion", "block": "plain"}], ids=str)
def test_images_of_a_batch_do_not_influence_each_other_in_evaluation(params):
    net = make_net(**params).double().eval()
    images = make_images(3).double()
    together = net(images)
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


# Nets for prediction


def trained_net(**params):
    """A net whose batch normalisations have statistics and scales of their own."""
    net = make_net(**params)
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
            nn.init.normal_(module.running_mean, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return net.eval()


@pytest.mark.parametrize("switch", [{}, *SWITCHES, {"dropout": 0.3}], ids=str)
def test_folded_nets_are_the_same_function(switch):
    net = trained_net(**switch)
    images = torch.randn(2, 1, 13, 22, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norms(net)
    torch.testing.assert_close(folded(images), net(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_folding_leaves_the_net_as_it_is():
    net = trained_net().train()
    before = copy.deepcopy(net.state_dict())
    folded = fold_batch_norms(net)
    nn.init.zeros_(folded.head.weight)
    assert net.training
    assert not folded.training
    assert net.state_dict().keys() == before.keys()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_prediction_follows_weights_that_were_changed(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast).fit(X, y)
    before = segmenter.predict_proba(X[:2])
    # Not counted by torch as a change in place.
    segmenter.net_.module_.head.bias.data[0] += 100.0
    after = segmenter.predict_proba(X[:2])
    assert not np.allclose(before, after, atol=0.1)
    np.testing.assert_allclose(after[:, 0], 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"block": "dense"}, "block must be among .*'plain'.*'dense'"),
        ({"skip": "sum"}, "skip must be among .*'add'.*'sum'"),
        ({"patch_size": 3}, "patch_size must be among .*2.*3"),
        ({"depth": 1, "patch_size": 2}, "depth must be above 1 with patch_size=2, got 1"),
        ({"depth": 0}, "depth must be above 0"),
    ],
    ids=str,
)
def test_wrong_parameters_of_the_net(params, match):
    with pytest.raises(ValueError, match=match):
        AttentionASPPUNet(1, 3, **{**DEFAULTS, **params})


def test_parts_that_the_net_has_not_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"parts must be among .*'decoder'.*'head'"):
        AttentionASPPUNet(1, 3, **DEFAULTS).freeze("head")
