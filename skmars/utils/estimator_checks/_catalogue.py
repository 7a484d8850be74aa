"""What became of each check of scikit-learn and imbalanced-learn."""

from collections.abc import Callable
from typing import NamedTuple

from skmars.utils.estimator_checks._selection import CALLED, own_checks

__all__ = [
    "DIFFERENCES",
    "NOT_MEANINGFUL",
    "PORTED",
    "WRITTEN_FOR",
    "Entry",
    "catalogue",
    "summary",
]

# Versions whose checks are all below.
WRITTEN_FOR = {"scikit-learn": "1.9.1", "imbalanced-learn": "0.14.2"}


class Entry(NamedTuple):
    """A check and what happens to it here.

    Attributes
    ----------
    check : str
        Name of the check.
    source : {"scikit-learn", "imbalanced-learn", "skmars"}
        Where it is from.
    what : {"called", "ported", "not meaningful", "own"}
        What happens to it here.
    ports : tuple of str
        Checks of this package that it became.
    reason : str
        Why it is not meaningful, in what a port differs, or what a check of this package's own
        looks at.
    """

    check: str
    source: str
    what: str
    ports: tuple[str, ...] = ()
    reason: str = ""


# By source: the checks of this package that a check became, if there is more than one or it has
# another name.
PORTED: dict[str, dict[str, tuple[str, ...]]] = {
    "scikit-learn": {
        "check_estimator": ("check_segmenter", "check_sampler"),
        "check_all_zero_sample_weights_error": (),
        "check_class_weight_classifiers": ("check_class_weight_segmenters",),
        "check_classifier_data_not_an_array": (
            "check_estimators_data_not_an_array",
            "check_nested_lists",
        ),
        "check_classifier_multioutput": ("check_supervised_y_4d",),
        "check_classifiers_classes": ("check_segmenters_classes",),
        "check_classifiers_one_label": (),
        "check_classifiers_one_label_sample_weights": (),
        "check_classifiers_predictions": ("check_segmenters_classes",),
        "check_classifiers_regression_target": ("check_masks_regression_target",),
        "check_classifiers_train": (
            "check_segmenters_train",
            "check_predict_proba",
            "check_inconsistent_masks",
        ),
        "check_complex_data": (),
        "check_dict_unchanged": (),
        "check_dont_overwrite_parameters": (),
        "check_dtype_object": (),
        "check_estimator_sparse_array": (),
        "check_estimator_sparse_matrix": (),
        "check_estimator_sparse_tag": (),
        "check_estimators_data_not_an_array": (),
        "check_estimators_dtypes": ("check_estimators_dtypes", "check_masks_dtypes"),
        "check_estimators_empty_data_messages": (),
        "check_estimators_fit_returns_self": (),
        "check_estimators_nan_inf": (),
        "check_estimators_overwrite_params": (),
        "check_estimators_partial_fit_n_features": ("check_estimators_partial_fit_n_channels",),
        "check_estimators_pickle": (),
        "check_estimators_unfitted": (),
        "check_f_contiguous_array_estimator": ("check_f_contiguous_images",),
        "check_fit1d": ("check_fit_flat",),
        "check_fit2d_1feature": ("check_fit_images_1channel",),
        "check_fit2d_1sample": ("check_fit_images_1sample",),
        "check_fit2d_predict1d": ("check_fit_images_predict_one_image",),
        "check_fit_check_is_fitted": (),
        "check_fit_idempotent": (),
        "check_fit_non_negative": (),
        "check_fit_score_takes_y": (),
        "check_inplace_ensure_writeable": (),
        "check_methods_sample_order_invariance": (),
        "check_methods_subset_invariance": (),
        "check_n_features_in": ("check_n_channels_in",),
        "check_n_features_in_after_fitting": ("check_n_channels_in_after_fitting",),
        "check_non_transformer_estimators_n_iter": (),
        "check_outliers_fit_predict": (),
        "check_outliers_train": ("check_outliers_fit_predict",),
        "check_pipeline_consistency": (),
        "check_positive_only_tag_during_fit": ("check_fit_non_negative",),
        "check_readonly_memmap_input": (),
        "check_requires_y_none": (),
        "check_sample_weight_equivalence_on_dense_data": ("check_sample_weight_equivalence",),
        "check_sample_weights_list": (),
        "check_sample_weights_not_an_array": (),
        "check_sample_weights_not_overwritten": (),
        "check_sample_weights_pandas_series": (),
        "check_sample_weights_shape": (),
        "check_supervised_y_2d": (),
        "check_supervised_y_no_nan": (),
        "check_transformer_preserve_dtypes": ("check_samplers_preserve_dtype",),
    },
    "imbalanced-learn": {
        "check_classifier_on_multilabel_or_multioutput_targets": ("check_supervised_y_4d",),
        "check_classifiers_with_encoded_labels": ("check_segmenters_classes",),
        "check_param_validation": ("check_samplers_param_validation",),
        "check_samplers_2d_target": ("check_supervised_y_4d",),
        "check_samplers_fit": (),
        "check_samplers_fit_resample": (),
        "check_samplers_list": ("check_samplers_list", "check_nested_lists"),
        "check_samplers_nan": ("check_estimators_nan_inf",),
        "check_samplers_one_label": (),
        "check_samplers_preserve_dtype": (),
        "check_samplers_sample_indices": (
            "check_samplers_sample_indices",
            "check_samplers_keep_originals",
        ),
        "check_samplers_sparse": ("check_estimator_sparse_array", "check_estimator_sparse_matrix"),
        "check_samplers_string": ("check_dtype_object",),
        "check_target_type": ("check_masks_regression_target", "check_supervised_y_4d"),
    },
}

# In what ports differ from what they are ports of.
DIFFERENCES: dict[str, dict[str, str]] = {
    "scikit-learn": {
        "check_class_weight_classifiers": (
            "compares shares of pixels, and asks for no share of 87 % after a short training"
        ),
        "check_classifiers_one_label_sample_weights": (
            "other labels may be predicted, which a short training does not rule out"
        ),
        "check_classifiers_train": (
            "asks for more than the best constant, and for no accuracy of 83 %"
        ),
        "check_dtype_object": "numbers of dtype object may be refused",
        "check_outliers_train": "a sampler has neither predict nor decision_function",
        "check_readonly_memmap_input": "looks at predictions as well",
        "check_sample_weight_equivalence_on_dense_data": (
            "an image of weight 0 is still in batches, splits and scaling: only its mask must "
            "not matter"
        ),
        "check_supervised_y_2d": "what is not one label a pixel is refused, not warned of",
    },
    "imbalanced-learn": {
        "check_samplers_2d_target": "turned round: refused",
        "check_samplers_fit": "there is no sampling_strategy_",
        "check_samplers_fit_resample": "there is no number of images a class to reach",
        "check_samplers_list": "arrays may come back for lists",
        "check_samplers_nan": "turned round: refused",
        "check_samplers_sparse": "turned round: refused",
        "check_samplers_string": "turned round: refused",
    },
}

# By source and reason.
NOT_MEANINGFUL: dict[str, dict[str, tuple[str, ...]]] = {
    "scikit-learn": {
        "images are numpy arrays here; the tag array_api_support stays False": (
            "check_array_api_input",
            "check_array_api_input_and_values",
            "check_array_api_mixed_inputs",
            "check_array_api_same_namespace",
        ),
        "images have no sparse form": (
            "check_sample_weight_equivalence_on_sparse_data",
            "check_sparsify_coefficients",
        ),
        "images are no distances between samples": ("check_nonsquare_error",),
        "images have no columns, so no names of columns": (
            "check_dataframe_column_names_consistency",
            "check_get_feature_names_out_error",
            "check_transformer_get_feature_names_out",
            "check_transformer_get_feature_names_out_pandas",
        ),
        "neither segmenters nor samplers have transform": (
            "check_global_output_transform_pandas",
            "check_global_set_output_transform_polars",
            "check_set_output_transform",
            "check_set_output_transform_pandas",
            "check_set_output_transform_polars",
            "check_transformer_data_not_an_array",
            "check_transformer_general",
            "check_transformer_n_iter",
            "check_transformers_unfitted",
            "check_transformers_unfitted_stateless",
        ),
        "masks hold labels, no quantities": (
            "check_regressor_data_not_an_array",
            "check_regressor_multioutput",
            "check_regressors_int",
            "check_regressors_no_decision_function",
            "check_regressors_train",
        ),
        "a pixel has one label": (
            "check_classifiers_multilabel_output_format_decision_function",
            "check_classifiers_multilabel_output_format_predict",
            "check_classifiers_multilabel_output_format_predict_proba",
            "check_classifiers_multilabel_representation_invariance",
        ),
        "a segmenter tells any number of classes apart": (
            "check_classifier_not_supporting_multiclass",
        ),
        "a segmenter has no decision_function": ("check_decision_proba_consistency",),
        "for linear classifiers, whose balanced weights can be worked out": (
            "check_class_weight_balanced_linear_classifier",
        ),
        "no check that runs by itself: scikit-learn's own tests call it with their data": (
            "check_class_weight_balanced_classifiers",
        ),
        "no check that runs by itself: it compares the ranks of a decision_function": (
            "check_outlier_corruption",
        ),
        "nothing is clustered": ("check_clusterer_compute_labels_predict", "check_clustering"),
    },
    "imbalanced-learn": {
        "images have no columns, so no names of columns": (
            "check_dataframe_column_names_consistency",
            "check_sampler_get_feature_names_out",
            "check_sampler_get_feature_names_out_pandas",
        ),
        "images do not fit in a table": ("check_samplers_pandas", "check_samplers_pandas_sparse"),
        "an image has pixels of many classes, so that no number of images a class can be set": (
            "check_samplers_sampling_strategy_fit_resample",
        ),
        "one-hot masks are refused: a fourth axis of the images is that of channels": (
            "check_samplers_multiclass_ova",
        ),
    },
}


def catalogue() -> list[Entry]:
    """All checks of both libraries and of this package, by source, then in alphabetical order.

    Returns
    -------
    entries : list of Entry
    """
    entries = []
    for source, ported in PORTED.items():
        called = CALLED if source == "scikit-learn" else ()
        rows = [Entry(check, source, "called") for check in called]
        rows += [
            Entry(check, source, "ported", ports or (check,), DIFFERENCES[source].get(check, ""))
            for check, ports in ported.items()
        ]
        rows += [
            Entry(check, source, "not meaningful", reason=reason)
            for reason, checks in NOT_MEANINGFUL[source].items()
            for check in checks
        ]
        entries += sorted(rows)
    ports = {port for entry in entries for port in entry.ports}
    own = {name: check for name, check in own_checks().items() if name not in ports}
    entries += [
        Entry(name, "skmars", "own", reason=summary(check)) for name, check in sorted(own.items())
    ]
    return entries


def summary(check: Callable) -> str:
    """First line of the docstring of a check."""
    return (check.__doc__ or "").strip().partition("\n")[0]
