"""The segmenter: every choice of net, loss and training as a scikit-learn estimator."""

import contextlib
import time

import numpy as np

from skmars import _validation as check
from skmars.base import BaseSegmenter
from skmars.exporting import OnnxMixin
from skmars.model_selection import class_counts
from skmars.parameters import CONSTRAINTS, check_together
from skmars.persistence import PersistenceMixin
from skmars.prediction.mosaics import MosaicMixin
from skmars.prediction.predict import PredictionMixin, sample_pixels, warn_of_other_scale
from skmars.training.plan import Phase, Plan, make_plan
from skmars.training.steps import TrainingMixin
from skmars.weighting import class_frequencies, counted_images, mean_weight

__all__ = ["MarsSegmenter"]


class MarsSegmenter(
    TrainingMixin, PredictionMixin, MosaicMixin, PersistenceMixin, OnnxMixin, BaseSegmenter
):
    """Semantic segmentation by a U-Net with attention gates and ASPP.

    `fit` takes images and masks as arrays; it scales the images, holds some out for validation,
    trains the net, and keeps a moving average of its weights. The defaults were chosen on grey
    images of Martian terrain. Images may have any number of channels and any size, which is the
    same for all images in training and may differ in prediction.

    Parameters
    ----------
    depth : int, default=3
        How often the encoder of the U-Net halves the resolution, 2 to 5.
    base_channels : int, default=16
        Width of a level at full resolution, at least 1; doubled with each halving. With
        `patch_size=2` the first level has twice as many channels.
    patch_size : {1, 2}, default=2
        1 has a first level at full resolution, as the original U-Net. 2 does without: each 2x2
        pixels are folded into channels (space to depth), the first level works at half of the
        resolution, and logits are interpolated. 1.4 to 1.8 times as fast.
    block : {"residual", "plain"}, default="residual"
        Two 3x3 convolutions with or without a shortcut around them.
    skip : {"concat", "add", "fusion"}, default="concat"
        How the decoder joins the encoder's features: concatenated, summed, or summed with
        learned weights.
    attention : bool, default=True
        Additive attention gates on the skip connections.
    aspp : bool, default=True
        Atrous spatial pyramid pooling at the bottleneck.
    dilation_rates : tuple of int, default=(1, 2, 4)
        Dilations of the ASPP's convolutions, one or more, each at least 1, in pixels of the
        bottleneck.
    dropout : float, default=0.0
        Fraction of channels dropped in each block in training, in [0, 1).
    loss : str or callable, default="cross_entropy"
        "cross_entropy", "focal", "dice", "boundary", or several joined by "+", such as
        "focal+dice". A callable takes `(logits, target)`, tensors of shape `(n, K, H, W)` and
        `(n, H, W)`, and returns a scalar; ignored pixels have the target -100. It is given no
        weights: `class_weight` has to be "auto" or None, `loss_params` and `sample_weight` None.
    loss_params : dict or None, default=None
        Parameters of the losses, such as `{"gamma": 2.0, "smooth": 1.0}`, and the weights of
        the terms of a sum, such as `{"dice_weight": 0.5}`.
    class_weight : {"auto", "balanced", "sqrt"}, dict or None, default="auto"
        Weights of the classes in the loss: by inverse frequency ("balanced"), by its square root
        ("sqrt"; both with a mean of 1 over the pixels), or by label. "auto" is "sqrt" with no
        weight above 8, and none where weights cannot be: in `partial_fit`, which does not see
        all images, and with a callable loss.
    max_class_weight : float or None, default=None
        No class weight exceeds it, where there are some; above 0.
    ignore_label : int or None, default=None
        Label that is no class: such pixels have no gradient, are never predicted, and are left
        out of the score.
    learning_rate : float, default=2e-3
        Learning rate of the optimizer, AdamW (Loshchilov and Hutter 2019); above 0.
    weight_decay : float, default=1e-2
        Weight decay of AdamW, at least 0.
    batch_size : int, default=16
        Images per training step, at least 1, and in prediction, where large images come in
        smaller batches.
    max_epochs : int or "auto", default="auto"
        Epochs of the first phase, at least 1. "auto" is 40 for 1,600 training images or more, and
        for n fewer ones `40 * sqrt(1600 / n)`: 160 for 100.
    ema_decay : float or None, default=0.99
        Decay of an exponential moving average of the weights (Polyak and Juditsky 1992), in
        [0, 1), with less at the first steps. The average is what is validated and kept. Used by
        `fit`, not by `partial_fit`. None keeps the weights themselves.
    scheduler : {"cosine", "plateau"} or None, default="cosine"
        Learning rate over time: cosine decay after a short warm-up, reduced when the
        validation loss no longer falls, or constant.
    scheduler_params : dict or None, default=None
        Parameters of `skmars.schedules.CosineDecay` or `ReduceOnPlateau`.
    time_limit : float or None, default=None
        Seconds that `fit` may take, both phases and validation included; above 0. Training
        then ends in time with its schedule completed, whatever `max_epochs` is, which only
        says how the phases share the time. Such a fit depends on the speed of the machine.
    validation_fraction : float or None, default=0.1
        Fraction of the images in the validation set, in (0, 1), unless `validation_data` is
        given. None trains on all images.
    early_stopping : bool, default=False
        Whether to restore the weights of the best epoch, by mean IoU on the validation set
        (without one: by training loss), and to stop after `patience` epochs without improvement;
        a cosine schedule under a `time_limit` is always completed. By default the weights are
        those at the end: the best epoch on few scenes is not the best on others. With `warm_start`
        the epochs of earlier fits do not compete.
    patience : int or "auto", default="auto"
        Epochs without improvement before training stops, at least 1. "auto" is a quarter of the
        first phase's epochs, and 10 at least.
    calibration : {"temperature"} or None, default=None
        "temperature" divides the logits by the number that minimises the cross entropy on the
        validation set (Guo et al. 2017), for `predict_proba`. Labels stay as they are, but for
        `tta` and `window`, which average probabilities. Used by `fit`, which needs a validation
        set; `partial_fit` has none.
    freeze : {"encoder", "encoder+bottleneck", "decoder"} or None, default=None
        What to freeze in a second phase of training, which starts from the result of the first;
        None for no second phase.
    fine_tune_epochs : int or "auto", default="auto"
        Epochs of the second phase, at least 1. "auto" is a quarter of the first phase's, and 10 at
        least.
    fine_tune_learning_rate : float, default=2e-4
        Learning rate of the second phase, above 0.
    augmentation : "auto", Augmenter or None, default="auto"
        Changes every training batch at random. "auto" is
        `Augmenter(horizontal_flip=False, brightness=0.3, contrast=0.3, random_crop=0.75,
        cutmix=0.5)`: illumination differs from scene to scene, and windows and CutMix keep the
        net from overfitting few scenes. The parameters of an Augmenter that is given are searched
        as `augmentation__brightness` and so on.
    tta : bool, default=True
        Test-time augmentation: whether to average the probabilities of an image and its mirror
        image, left and right exchanged, which takes about twice as long.
    window : tuple of int or None, default=None
        Height and width of the windows that larger images are predicted in, each at least
        `2**depth` pixels. None predicts every image whole.
    overlap : float, default=0.25
        Least fraction of their height and width that neighbouring windows share, in [0, 1). Of
        what they share, the outer third of each only gives context, and Gaussian weights blend
        both in the middle. Without a `window` it is not used: `predict_large` takes its own then.
    device : str, default="auto"
        A torch device; "auto" takes an accelerator if there is one. Set after `fit`, it holds for
        prediction and `partial_fit` from then on.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the convolutions. "auto" measures once per process which is faster. Set after
        `fit`, it holds as `device` does, but "auto" keeps what was chosen for the same device.
    compile : {"auto"} or bool, default="auto"
        Whether to compile the net in training, by `torch.compile`. "auto" does not: it takes a
        minute to begin with, and the compiled step was no faster where it was measured.
    n_threads : int or "auto", default="auto"
        Threads of torch in `fit` and prediction, at least 1; "auto" leaves torch's own setting.
    warm_start : bool, default=False
        Whether `fit` goes on from the present weights. Classes, channels and the net's
        parameters have to be as before.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, the validation split, batches, dropout and augmentation. With an
        integer, two fits on one machine give the same weights, except under a `time_limit`, in
        threads of one process, which share torch's random numbers, and in processes that have
        measured another precision or memory layout to be the fastest.
    verbose : int, default=0
        0 is silent, 1 prints a row per epoch, 2 shows a progress bar over the batches as well.
    callbacks : list, tuple or None, default=None
        skorch callbacks, called after the estimator's own. One that raises KeyboardInterrupt ends
        the phase, as skorch's own do. They see the weights before they are
        averaged: use `early_stopping`, not callbacks that load the best ones. skorch's
        `EpochScoring` needs `use_caching=False`; `LRScheduler` is refused, set `scheduler`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels that can be predicted, sorted.
    n_channels_in_ : int
        Channels of the images seen in `fit`.
    class_frequencies_ : ndarray of shape (n_classes,)
        Fraction of each class in the labelled pixels, each by its weight.
    class_weight_ : ndarray of shape (n_classes,)
        Weights used in the loss.
    mean_, scale_ : ndarray of shape (n_channels,)
        Mean and standard deviation of the training images.
    net_ : skorch.NeuralNet
        The trained net; `net_.module_` is the torch module.
    history_ : list of dict
        For each epoch of all phases `epoch`, `phase`, `train_loss`, `learning_rate` and
        `seconds`, with validation also `valid_loss` and `valid_mean_iou`, both without `tta`, with
        `calibration` also `temperature`.
    best_epoch_ : int
        Index of the row of `history_` whose weights the net has.
    n_iter_ : int
        Number of epochs.
    n_parameters_ : int
        Number of the net's trainable parameters.
    temperature_ : float
        What the logits are divided by; 1.0 without `calibration`.
    precision_, device_ : str
        Those of the last training or prediction, with "auto" resolved.

    See Also
    --------
    skmars.nn.AttentionASPPUNet : The net as a torch module, with the papers behind its parts.
    skmars.losses : The losses, with theirs.

    Examples
    --------
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> X, y = make_terrain(24, random_state=0)
    >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=2, random_state=0)
    >>> segmenter.fit(X, y).predict(X[:2]).shape
    (2, 64, 128)
    """

    _parameter_constraints: dict = CONSTRAINTS

    def __init__(
        self,
        *,
        depth=3,
        base_channels=16,
        patch_size=2,
        block="residual",
        skip="concat",
        attention=True,
        aspp=True,
        dilation_rates=(1, 2, 4),
        dropout=0.0,
        loss="cross_entropy",
        loss_params=None,
        class_weight="auto",
        max_class_weight=None,
        ignore_label=None,
        learning_rate=2e-3,
        weight_decay=1e-2,
        batch_size=16,
        max_epochs="auto",
        ema_decay=0.99,
        scheduler="cosine",
        scheduler_params=None,
        time_limit=None,
        validation_fraction=0.1,
        early_stopping=False,
        patience="auto",
        calibration=None,
        freeze=None,
        fine_tune_epochs="auto",
        fine_tune_learning_rate=2e-4,
        augmentation="auto",
        tta=True,
        window=None,
        overlap=0.25,
        device="auto",
        precision="auto",
        compile="auto",
        n_threads="auto",
        warm_start=False,
        random_state=None,
        verbose=0,
        callbacks=None,
    ):
        self.depth = depth
        self.base_channels = base_channels
        self.patch_size = patch_size
        self.block = block
        self.skip = skip
        self.attention = attention
        self.aspp = aspp
        self.dilation_rates = dilation_rates
        self.dropout = dropout
        self.loss = loss
        self.loss_params = loss_params
        self.class_weight = class_weight
        self.max_class_weight = max_class_weight
        self.ignore_label = ignore_label
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.ema_decay = ema_decay
        self.scheduler = scheduler
        self.scheduler_params = scheduler_params
        self.time_limit = time_limit
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.calibration = calibration
        self.freeze = freeze
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_learning_rate = fine_tune_learning_rate
        self.augmentation = augmentation
        self.tta = tta
        self.window = window
        self.overlap = overlap
        self.device = device
        self.precision = precision
        self.compile = compile
        self.n_threads = n_threads
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(self, X, y, *, sample_weight=None, groups=None, validation_data=None):
        """Train the net.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images of any integer or floating dtype, at least one pixel high and wide.
        y : array-like of shape (n, H, W)
            Masks of integer labels.
        sample_weight : array-like of shape (n,) or (n, H, W), default=None
            Weights of images or pixels in the loss, at least 0; only their ratios matter, and what
            has a weight of 0 is as good as unlabelled.
        groups : array-like of shape (n,), default=None
            Images of one group, such as tiles of one scene, are not split between training and
            validation set.
        validation_data : tuple of (X, y) or (X, y, sample_weight), default=None
            Validation set of your own, instead of images that are held out. What has a weight of 0
            is not scored; the weights are on the scale of `sample_weight`, or of 1 without it.

        Returns
        -------
        self : MarsSegmenter

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described; nothing has been
            trained then.
        FloatingPointError
            If the training diverges. After any error the estimator is as it was before.

        Warns
        -----
        UserWarning
            If it is mostly the pixels of `ignore_label` that the images vary by, since images are
            divided by their standard deviation; or if images to validate on, or with `warm_start`
            those to train on, are on another scale, as `predict` says.
        """
        started = time.perf_counter()
        self._validate_params()
        check_together(self.get_params(deep=False), weighted=sample_weight is not None)
        X, y, sample_weight = check.check_training_data(X, y, sample_weight)
        groups = check.check_groups(groups, len(X))
        classes = check.find_classes(y, self.ignore_label)
        counts = class_counts(y, classes, sample_weight)
        counted = counted_images(counts, sample_weight)
        rng = check.random_generator(self.random_state)
        valid_data: tuple | None
        if validation_data is None:
            rows, held_out = self._hold_out(counts, counted, groups, rng)
            valid_data = None if held_out is None else (X, y, sample_weight, held_out)
        else:
            rows, valid_data = np.arange(len(X)), self._check_valid(validation_data, X, classes)
        if self.calibration is not None and valid_data is None:
            raise ValueError(
                f"calibration={self.calibration!r} needs images that are not trained on: give a "
                "validation_fraction or validation_data"
            )
        before = self._earlier_net(X, classes) if self.warm_start else None
        if before is None:
            check.warn_of_filling(X, y, self.ignore_label, rows)
        with self._unchanged_by_errors(), self._computing(rng):
            self._rng = rng
            # A callable takes no weights; "auto" asks for none then.
            class_weight = self.class_weight if isinstance(self.loss, str) else None
            frequencies = class_frequencies(counts, y, classes, sample_weight)
            self._start(X, rows, classes, frequencies, class_weight)
            if before is not None:
                self._go_on_from(before)
                warn_of_other_scale(sample_pixels(X), self.scale_, stacklevel=3)
            if valid_data is not None and valid_data[0] is not X:
                samples = sample_pixels(valid_data[0])
                warn_of_other_scale(samples, self.scale_, stacklevel=3)
            mean = mean_weight(y, sample_weight, rows, self.ignore_label)
            train_set = self._dataset(X, y, sample_weight, rows, mean_weight=mean)
            valid_set = valid_data and self._dataset(*valid_data, mean_weight=mean)
            plan = make_plan(self.get_params(deep=False), len(rows), started)
            self._train(train_set, valid_set, plan, rng)
        return self

    def partial_fit(self, X, y, *, classes=None, sample_weight=None):
        """Train for one more pass over some images, at the constant learning rate.

        The first call on a new estimator starts it, later ones and those after `fit` go on with
        its net and optimizer, its scaling and class weights; all else is as the parameters
        are now. Nothing is held out for validation.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that there will be; by default those in the first `y`. Only used by the
            first call.
        sample_weight : array-like of shape (n,) or (n, H, W), default=None
            Weights of images or pixels in the loss, at least 0. They are taken as they are, beside
            a weight of 1 in calls without some; `fit` divides them by their mean.

        Returns
        -------
        self : MarsSegmenter

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described, `class_weight` depends
            on frequencies, which one part of the images does not tell, or the net's parameters are
            others than those of the net that there is.
        FloatingPointError
            If the training diverges. After that, and after any error in the first call, the
            estimator is as it was before; other errors later on leave what was trained until then.

        Warns
        -----
        UserWarning
            In the first call as `fit` does, in later ones if images are on another scale.
        """
        self._validate_params()
        check_together(self.get_params(deep=False), weighted=sample_weight is not None)
        is_first = not hasattr(self, "net_")
        # The frequencies in one part of the images are not those of all.
        class_weight = None if self.class_weight == "auto" else self.class_weight
        if is_first and isinstance(class_weight, str):
            raise ValueError(
                f"class_weight={class_weight!r} needs all images at once; "
                "give partial_fit a dict of weights"
            )
        n_channels = None if is_first else self.n_channels_in_
        X, y, sample_weight = check.check_training_data(X, y, sample_weight, n_channels=n_channels)
        if is_first:
            if classes is None:
                classes = check.find_classes(y, self.ignore_label)
            else:
                classes = check.check_classes(classes, self.ignore_label)
        else:
            self._check_same_net("partial_fit")
            classes = self.classes_
        check.check_labels(y, classes, self.ignore_label, needs_one=True)
        counts = class_counts(y, classes, sample_weight)
        counted_images(counts, sample_weight)
        rng = getattr(self, "_rng", None) or check.random_generator(self.random_state)
        rows = np.arange(len(X))
        if is_first:
            check.warn_of_filling(X, y, self.ignore_label, rows)
        else:
            warn_of_other_scale(sample_pixels(X), self.scale_, stacklevel=3)
            self._move_net()
        undo = contextlib.nullcontext() if is_first else self._undone_if_diverged(rng)
        with undo, self._unchanged_by_errors(), self._computing(rng):
            self._rng = rng
            if is_first:
                frequencies = class_frequencies(counts, y, classes, sample_weight)
                self._start(X, rows, classes, frequencies, class_weight)
            else:
                self._take_over_settings()
            plan = Plan([Phase("partial_fit", 1, self.learning_rate)])
            self._train(self._dataset(X, y, sample_weight, rows), None, plan, rng)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")
