"""Plausible mistakes, planted one at a time in a copy: each must fail a test.

A mutant that lives is a behaviour that no test holds. `pytest -m slow
tests/test_mutants.py` says which; `-k NAME` plants one.
"""

import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests import planted
from widemin import paths
from widemin.experiments import pool as workers

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(planted.PRELOADED)
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Mutant:
    """What is planted, and the tests that must notice.

    Attributes:
        name: The behaviour that is broken.
        where: File or folder of the package that holds the text, once.
        old: The text.
        new: What takes its place.
        tests: Ids of tests, at least one of which must fail.
    """

    name: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]


def column(name):
    return (
        f"tests/test_experiments.py::test_a_column_is_what_a_straight_call_gives[{name}]",
    )


def judged(part):
    test = "test_a_claim_passes_above_its_threshold_and_fails_below"
    return (f"tests/test_outcomes.py::{test}[{part}]",)


def of(file, *names):
    return tuple(f"tests/test_{file}.py::{name}" for name in names)


ATTACKS = [
    Mutant(
        "no random start",
        "attacks",
        "start = (x + ball.sample(x, generator)).clamp(0, 1)",
        "start = x.clone()",
        of("attacks", "test_one_generator_gives_one_attack"),
    ),
    Mutant(
        "a random start in half the radius",
        "attacks",
        "self.epsilon * (2 * uniform - 1)",
        "self.epsilon * (uniform - 0.5)",
        of("attacks", "test_the_random_start_covers_the_ball"),
    ),
    Mutant(
        "restarts keep the worse",
        "attacks",
        "losses > highest[again]",
        "losses < highest[again]",
        of("attacks", "test_more_restarts_never_lower_the_loss"),
    ),
    Mutant(
        "a step too many for each image",
        "attacks",
        "step < steps_each",
        "step <= steps_each",
        of("attacks", "test_each_image_takes_its_own_number_of_steps"),
    ),
    Mutant(
        "FGSM leaves the range of pixels",
        "attacks",
        "(x + ball.epsilon * ball.steepest(gradient)).clamp(0, 1)",
        "x + ball.epsilon * ball.steepest(gradient)",
        of("attacks", "test_fgsm_leaves_no_pixel_outside_the_range"),
    ),
    Mutant(
        "the worst case counts what any attack leaves",
        "evaluation",
        'right["worst case"] = torch.stack(list(right.values())).all(0)',
        'right["worst case"] = torch.stack(list(right.values())).any(0)',
        of(
            "evaluation",
            "test_a_report_of_a_linear_model_is_the_distribution_of_distances",
        ),
    ),
]
ATTACKS += [
    Mutant(
        "logs are safe from 0 by 1e-7",
        "attacks/losses.py",
        "+ 1e-20).log()",
        "+ 1e-7).log()",
        of("attacks", "test_losses_trained_on_are_torchs_cross_entropy[shifted]"),
    ),
    Mutant(
        "logits of float16, the loss of float32",
        "attacks/losses.py",
        "cross_entropy(logits.half(), y)",
        "cross_entropy(logits.half().float(), y)",
        of("attacks", "test_losses_trained_on_lose_their_gradient_where_numbers_end"),
    ),
    Mutant(
        "bfloat16 is float16",
        "attacks/losses.py",
        "cross_entropy(logits.bfloat16(), y)",
        "cross_entropy(logits.half(), y)",
        of("attacks", "test_losses_trained_on_lose_their_gradient_where_numbers_end"),
    ),
    Mutant(
        "temperature 4 for 1/4",
        "attacks/losses.py",
        "cross_entropy(4 * logits, y)",
        "cross_entropy(logits / 4, y)",
        of("attacks", "test_losses_trained_on_are_torchs_cross_entropy[quarter]"),
    ),
    Mutant(
        "logits have the norm 100",
        "attacks/losses.py",
        "10 * logits / norm",
        "100 * logits / norm",
        of("attacks", "test_normalised_logits_have_no_margin_beyond_14_2"),
    ),
    Mutant(
        "logits are normalised by their largest",
        "attacks/losses.py",
        "logits.norm(dim=1, keepdim=True)",
        "logits.abs().amax(1, keepdim=True)",
        of("attacks", "test_losses_trained_on_are_torchs_cross_entropy[normalised]"),
    ),
]
TRAINING = [
    Mutant(
        "the FOSC threshold falls to 0 at the very end",
        "experiments/attack_schedule.py",
        "1 - t * 6 / 5",
        "1 - t",
        of("experiments", "test_a_huge_threshold_leaves_one_step_of_ascent"),
    ),
    Mutant(
        "a recipe's schedule is ignored",
        "experiments/train.py",
        "schedule=recipe.schedule",
        'schedule="constant"',
        of("networks", "test_networks_trained_together_are_those_trained_alone"),
    ),
    Mutant(
        "the loss is weighted from the first epoch on",
        "experiments/attack_schedule.py",
        "recipe.loss_weighted and t >= 1 / recipe.epochs",
        "recipe.loss_weighted",
        of("experiments", "test_the_loss_is_weighted_from_the_second_epoch_on"),
    ),
    Mutant(
        "the validation curve is of test images",
        "experiments/epoch_metrics.py",
        "evaluation.robust_mask(model, *unseen, chosen)",
        "evaluation.robust_mask(model, x, y, chosen)",
        of("experiments", "test_the_watch_sees_what_straight_calls_give"),
    ),
    Mutant(
        "held-out images are the first test images",
        "experiments/epoch_metrics.py",
        "x[-size:], y[-size:]",
        "x[:size], y[:size]",
        of("networks", "test_epochs_are_chosen_on_images_that_training_never_sees"),
    ),
    Mutant(
        "the briefly trained network has the seed of the attacked one",
        "experiments/recipe.py",
        "seed=self.seed + 1_000",
        "seed=self.seed",
        of(
            "experiments",
            "test_scaling_logits_moves_no_prediction_and_not_the_margin_attack",
        ),
    ),
    Mutant(
        "the watch's masked share is inverted",
        "experiments/epoch_metrics.py",
        "share(margin > evaluation.MASKED_MARGIN)",
        "share(margin < evaluation.MASKED_MARGIN)",
        of("experiments", "test_the_watch_sees_what_straight_calls_give"),
    ),
]
TRAINING += [
    Mutant(
        "SAM does not climb",
        "training.py",
        "torch._foreach_add_(parameters, list(step))",
        "list(step)",
        of(
            "training",
            "test_perturbed_weights_move_by_rho_along_the_gradient_and_come_back_exactly",
        ),
    ),
    Mutant(
        "SAM climbs by the gradient, whatever its length",
        "training.py",
        "rho / (norm + 1e-12)",
        "rho",
        of(
            "training",
            "test_perturbed_weights_move_by_rho_along_the_gradient_and_come_back_exactly",
        ),
    ),
    Mutant(
        "SAM's second pass forgets the loss and its weights",
        "training.py",
        "kept:\n            backward(model, x, y, weighted, loss)",
        "kept:\n            backward(model, x, y)",
        of("training", "test_both_passes_of_sam_take_the_gradient_of_the_same_loss"),
    ),
    Mutant(
        "SAM climbs the cross-entropy, whatever the loss",
        "training.py",
        "before = backward(model, x, y, weighted, loss)",
        "before = backward(model, x, y, weighted)",
        of("training", "test_a_step_on_a_loss_of_ones_own_has_its_closed_form"),
    ),
    Mutant(
        "a loss of one's own is never weighted",
        "training.py",
        "(each.detach() * each if weighted else each)",
        "each",
        of("training", "test_a_step_on_a_loss_of_ones_own_has_its_closed_form"),
    ),
    Mutant(
        "lean steps descend the cross-entropy, whatever the loss",
        "experiments/lean_step.py",
        "if own is None:",
        "if True:",
        of(
            "side_by_side",
            "test_lean_steps_on_a_loss_reach_the_weights_of_autograd[quarter]",
        ),
    ),
    Mutant(
        "rates fall by epoch, not by step",
        "training.py",
        "SCHEDULES[schedule](taken / updates)",
        "SCHEDULES[schedule](position.epoch / epochs)",
        of("training", "test_the_rate_falls_by_step_and_is_put_back"),
    ),
    Mutant(
        "crop and flip does not crop",
        "experiments/train.py",
        'padding = 4 if recipe.augment == "crop+flip" else 0',
        "padding = 0",
        of("fitting", "test_crop_and_flip_shifts_images_and_flip_only_mirrors_them"),
    ),
    Mutant(
        "surrogates have the defence's own seed",
        "experiments/recipe.py",
        "seed = 1_000 if self.seed != 1_000 else 2_000",
        "seed = self.seed",
        of("fitting", "test_networks_that_attack_another_have_another_seed"),
    ),
]
TRAINING += [
    Mutant(
        "SAM begins at once",
        "experiments/attack_schedule.py",
        "rho = recipe.rho if t >= recipe.sam_from else 0.0",
        "rho = recipe.rho",
        of("fitting", "test_sam_begins_at_its_share_of_training"),
    ),
    Mutant(
        "SAM's second gradient is counted in every step",
        "experiments/attack_schedule.py",
        "count(len(x) if rho else 0)",
        "count(len(x) if recipe.rho else 0)",
        of("fitting", "test_sam_begins_at_its_share_of_training"),
    ),
    Mutant(
        "work is guessed as if SAM attacked twice",
        "experiments/recipe.py",
        "again = 1 - self.sam_from if self.rho else 0",
        "again = passes * (1 - self.sam_from) if self.rho else 0",
        of("fitting", "test_work_counts_the_gradients_of_every_step"),
    ),
    Mutant(
        "labels are not smoothed",
        "experiments/recipe.py",
        "        if self.label_smoothing:\n",
        "        if False:\n",
        of("fitting", "test_training_descends_the_loss_that_the_recipe_names"),
    ),
    Mutant(
        "the loss that a recipe names is ignored",
        "experiments/attack_schedule.py",
        "        loss=recipe.own_loss,\n",
        "",
        of("fitting", "test_training_descends_the_loss_that_the_recipe_names"),
    ),
    Mutant(
        "every nudge is one draw",
        "experiments/train.py",
        'f"nudge {recipe.nudge}"',
        '"nudge"',
        of("fitting", "test_a_nudge_is_rounding_and_nothing_else"),
    ),
    Mutant(
        "a nudge is of a size, whatever the weight",
        "experiments/train.py",
        "NUDGE * p.abs() * torch",
        "NUDGE * torch",
        of("fitting", "test_a_nudge_is_rounding_and_nothing_else"),
    ),
    Mutant(
        "training ends by the loss of all images",
        "experiments/train.py",
        "_loss(model, x[few], y[few])",
        "_loss(model, x, y)",
        of(
            "networks",
            "test_training_ends_at_the_first_look_at_a_loss_that_is_low_enough",
        ),
    ),
    Mutant(
        "training looks at its loss in every step",
        "experiments/train.py",
        "now.position.batch % every == 0",
        "True",
        of(
            "networks",
            "test_training_ends_at_the_first_look_at_a_loss_that_is_low_enough",
        ),
    ),
    Mutant(
        "a look at the loss moves batch norm",
        "experiments/train.py",
        "with attacks.inference(model), torch.no_grad():",
        "with torch.no_grad():",
        of("networks", "test_a_loss_never_reached_stops_nothing_and_moves_nothing"),
    ),
    Mutant(
        "networks with a loss of their own train side by side",
        "experiments/train.py",
        "other = recipe.own_loss or recipe.stop_loss or recipe.nudge",
        "other = recipe.stop_loss or recipe.nudge",
        of(
            "networks",
            "test_only_what_differs_in_rates_and_seeds_is_trained_together",
        ),
    ),
]
MEASURING = [
    Mutant(
        "worst accuracy is the union of survivors",
        "experiments/measure/final.py",
        "torch.stack(list(right.values())).all(0)",
        "torch.stack(list(right.values())).any(0)",
        column("worst_accuracy"),
    ),
    Mutant(
        "PGD's step is 250 times too small",
        "experiments/measure/attacked.py",
        "2.5 * ball.epsilon / steps",
        "0.01 * ball.epsilon / steps",
        column("pgd_accuracy"),
    ),
    Mutant(
        "PGD's step does not depend on their number",
        "experiments/measure/attacked.py",
        "2.5 * ball.epsilon / steps",
        "2.5 * ball.epsilon / 10",
        column("restarts_accuracy"),
    ),
    Mutant(
        "FGSM through the loss trained on is through the logits",
        "experiments/measure/attacked.py",
        "partial(attacks.fgsm, ball=t.ball, loss=own_loss)",
        "partial(attacks.fgsm, ball=t.ball)",
        column("fgsm_own_accuracy"),
    ),
    Mutant(
        "PGD through the loss trained on is through the logits",
        "experiments/measure/attacked.py",
        "pgd(loss=own_loss)",
        "pgd()",
        column("pgd_own_accuracy"),
    ),
    Mutant(
        "C&W's step is 100 times too small",
        "experiments/measure/attacked.py",
        "step_size=t.ball.epsilon / 10",
        "step_size=t.ball.epsilon / 1000",
        column("wang_cw_accuracy"),
    ),
    Mutant(
        "one start for five",
        "experiments/measure/attacked.py",
        "restarts=5",
        "restarts=1",
        column("restarts_accuracy"),
    ),
    Mutant(
        "transfer stops where its own network is fooled",
        "experiments/measure/attacked.py",
        "loss=attacks.margin, until_fooled=False",
        "loss=attacks.margin",
        column("transfer_accuracy"),
    ),
    Mutant(
        "the masked share is inverted",
        "experiments/measure/final.py",
        "share(margin > evaluation.MASKED_MARGIN)",
        "share(margin < evaluation.MASKED_MARGIN)",
        column("masked_share"),
    ),
    Mutant(
        "the masked share of scaled logits is inverted",
        "experiments/measure/attacked.py",
        "share(margin > evaluation.MASKED_MARGIN)",
        "share(margin < evaluation.MASKED_MARGIN)",
        of(
            "experiments",
            "test_scaling_logits_moves_no_prediction_and_not_the_margin_attack",
        ),
    ),
    Mutant(
        "the Hessian is that of test images",
        "experiments/measure/curvature.py",
        'x, y = images(recipe.dataset, "train", size, device)\n    draws',
        'x, y = images(recipe.dataset, "test", size, device)\n    draws',
        column("top_eigenvalue"),
    ),
    Mutant(
        "widths start anew at every level",
        "experiments/measure/curvature.py",
        'if below else {"starts": 2}',
        'if None else {"starts": 2}',
        column("width_weights_1"),
    ),
    Mutant(
        "flatness at the network's own scale",
        "experiments/measure/scale_free.py",
        "logit_scale(model, 1 / median)",
        "logit_scale(model, 1.0)",
        column("scale_free_adaptive_sharpness"),
    ),
    Mutant(
        "the scale-free search starts anew at every level",
        "experiments/measure/scale_free.py",
        "    if below:",
        "    if None:",
        column("scale_free_width_nodes_1"),
    ),
    Mutant(
        "flatness of a network that is mostly wrong",
        "experiments/measure/scale_free.py",
        "if median <= 0:",
        "if median < -1e9:",
        of(
            "landscape",
            "test_scale_free_values_are_those_at_a_median_margin_of_1[other0]",
        ),
    ),
    Mutant(
        "relative flatness without the blocks between rows",
        "landscape/relative_flatness.py",
        "((p @ apart) * p).sum(1) / 2",
        "((p - p**2) @ rows.square().sum(1))",
        of(
            "landscape",
            "test_relative_flatness_is_its_sum_over_blocks_of_the_hessian[True]",
        ),
    ),
    Mutant(
        "a search uphill goes downhill",
        "landscape/width.py",
        "directions.append(slope / slope.norm())",
        "directions.append(-slope / slope.norm())",
        of(
            "landscape",
            "test_a_search_uphill_starts_from_the_gradient_and_where_it_is_told",
        ),
    ),
    Mutant(
        "adaptive sharpness at five times its radius",
        "experiments/measure/curvature.py",
        "rho=ADAPTIVE_RADIUS",
        "rho=5 * ADAPTIVE_RADIUS",
        column("adaptive_sharpness"),
    ),
    Mutant(
        "bins of FOSC in falling order",
        "experiments/measure/fosc.py",
        "joined[by].argsort()",
        "joined[by].argsort(descending=True)",
        of(
            "experiments",
            "test_bins_share_the_images_and_surrogates_are_trained_once",
        ),
    ),
    Mutant(
        "the accuracy after an attack of another strength is inverted",
        "experiments/measure/fosc.py",
        '1 - share(end["fooled"])',
        'share(end["fooled"])',
        of(
            "experiments",
            "test_bins_share_the_images_and_surrogates_are_trained_once",
        ),
    ),
]
MEASURING += [
    Mutant(
        "the binary classifier has a margin of 1",
        "evaluation/binarization.py",
        "scale = (first - second) / (threshold - below[0])",
        "scale = 1 / (threshold - below[0])",
        of(
            "binarization",
            "test_the_classifier_is_as_sure_of_the_image_as_the_network",
            "test_confidence_blinds_cross_entropy_and_not_the_margin",
        ),
    ),
    Mutant(
        "the binary classifier's threshold lies half way",
        "evaluation/binarization.py",
        "INSIDE, CLOSE = 0.95, 0.999",
        "INSIDE, CLOSE = 0.95, 0.5",
        of("binarization", "test_the_threshold_is_just_below_the_boundary_point"),
    ),
    Mutant(
        "the binary classifier's first logit is constant",
        "evaluation/binarization.py",
        "own, readout = last.weight[answer],",
        "own, readout = 0 * last.weight[answer],",
        of(
            "binarization",
            "test_float32_loses_the_first_logit_of_the_classifier_as_of_the_network",
        ),
    ),
    Mutant(
        "readouts that separate nothing are tested",
        "evaluation/binarization.py",
        "separable[i] = of_high.all() and not of_low.any()",
        "separable[i] = True",
        of("binarization", "test_images_without_a_separating_readout_say_nothing"),
    ),
    Mutant(
        "random tries never lie on the boundary",
        "evaluation/binarization.py",
        "drawn(image, inner // 2, inner - inner // 2)",
        "drawn(image, inner, 0)",
        of("binarization", "test_random_points_find_what_every_corner_has"),
    ),
    Mutant(
        "the binarization test may be passed outside the ball",
        "evaluation/binarization.py",
        "{name: within(attack, ball, name) for name, attack in attacks.items()}",
        "dict(attacks)",
        of("binarization", "test_bad_input_is_one_line"),
    ),
    Mutant(
        "shares of the binarization test are of all images",
        "experiments/measure/binarized.py",
        "share(mask[separable])",
        "share(mask)",
        column("binarized_pgd"),
    ),
    Mutant(
        "FOSC foretells from the random start",
        "experiments/measure/fosc.py",
        "t.ball, 10, 1 / 4, draws)[-1]",
        "t.ball, 10, 1 / 4, draws)[0]",
        column("fosc_auroc"),
    ),
    Mutant(
        "the stronger attack ends with the margin",
        "experiments/measure/fosc.py",
        "((attacks.margin, 10), (attacks.cross_entropy, 5))",
        "((attacks.margin, 1),)",
        column("certificate_broken"),
    ),
    Mutant(
        "images that hold are foretold for those that break",
        "experiments/measure/fosc.py",
        "broken = ~left[survivors]",
        "broken = left[survivors]",
        column("fosc_auroc"),
    ),
    Mutant(
        "images wrong without an attack survive it",
        "experiments/measure/fosc.py",
        'survivors = evaluation.correct(t.model, t.x, t.y) & (joined["margin"] < 0)',
        'survivors = joined["margin"] < 1e9',
        column("certificate_survivors"),
    ),
    Mutant(
        "ties count whole in the area under the ROC curve",
        "statistics.py",
        "scipy.stats.rankdata(score)",
        'scipy.stats.rankdata(score, "max")',
        of("statistics", "test_the_area_is_the_share_of_pairs_in_order"),
    ),
]
JUDGING = [
    Mutant(
        "a threshold is ignored",
        "papers/claims/engine.py",
        "PASSES if judged.passed else FAILS",
        "PASSES",
        of("rule", "test_a_part_is_decided_where_the_whole_interval_lies_on_one_side"),
    ),
    Mutant(
        "at most is read as at least",
        "papers/claims/draws.py",
        '"<=": operator.le',
        '"<=": operator.ge',
        of("rule", "test_a_part_is_decided_where_the_whole_interval_lies_on_one_side"),
    ),
    Mutant(
        "an interval across the threshold decides",
        "papers/claims/engine.py",
        "for end in ends}) > 1:",
        "for end in ends}) > 2:",
        of("rule", "test_a_part_is_decided_where_the_whole_interval_lies_on_one_side"),
    ),
    Mutant(
        "half of the draws lie outside the interval",
        "papers/claims/engine.py",
        "[0.025, 0.975]",
        "[0.25, 0.75]",
        of("rule", "test_a_part_is_decided_where_the_whole_interval_lies_on_one_side"),
    ),
    Mutant(
        "unmet needs decide",
        "papers/claims/engine.py",
        "    if judged.lacks:\n",
        "    if judged.lacks and False:\n",
        of("rule", "test_fewer_than_three_seeds_decide_nothing"),
    ),
    Mutant(
        "two seeds have an interval",
        "papers/claims/engine.py",
        "        drawn = drawn[:1]\n",
        "        drawn = drawn[:]\n",
        of("rule", "test_fewer_than_three_seeds_decide_nothing"),
    ),
    Mutant(
        "a smaller run overrules a larger one",
        "papers/claims/engine.py",
        "if others[0] in larger and",
        "if False and",
        of("rule", "test_a_smaller_run_never_overrules_a_larger_one"),
    ),
    Mutant(
        "the last rows go first",
        "papers/claims/engine.py",
        "chosen = next(enough, there[0])",
        "chosen = [*enough, there[0]][-1]",
        of("rule", "test_a_smaller_run_never_overrules_a_larger_one"),
    ),
    Mutant(
        "controls are charged to the paper",
        "papers/claims/engine.py",
        'if j.part.kind != "control"] or list(judged)',
        "] or list(judged)",
        of("rule", "test_the_weakest_part_names_the_claim"),
    ),
    Mutant(
        "one part that passes makes a claim",
        "papers/claims/engine.py",
        "    if {PASSES, FAILS} <= words:\n",
        "    if PASSES in words:\n",
        of("rule", "test_the_weakest_part_names_the_claim"),
    ),
    Mutant(
        "the strongest undecided word names a claim",
        "papers/claims/engine.py",
        "(FAILS, NOT_RUN, UNDECIDABLE, INCONCLUSIVE)",
        "(FAILS, INCONCLUSIVE, UNDECIDABLE, NOT_RUN)",
        of("rule", "test_the_weakest_part_names_the_claim"),
    ),
    Mutant(
        "equal seeds leave no doubt",
        "papers/claims/engine.py",
        "(len(drawn) > 1 and not np.ptp(drawn))",
        "False",
        of("rule", "test_a_single_proportion_has_wilsons_interval"),
    ),
    Mutant(
        "one order has an interval of width zero",
        "papers/claims/engine.py",
        "if ends and ends[0] == ends[1]:",
        "if False:",
        of("rule", "test_one_order_of_all_draws_has_a_chance_and_no_interval"),
    ),
    Mutant(
        "a badge on every page",
        "experiments/results.py",
        'if old else ""',
        'if True else ""',
        of("cards", "test_the_stamp_is_one_plain_line_however_old_the_commit"),
    ),
    Mutant(
        "what a claim takes is told of the largest preset",
        "papers/claims/verdict.py",
        "for runs in reversed(evidence)",
        "for runs in evidence",
        of("cards", "test_a_claim_takes_the_smallest_preset_that_is_enough"),
    ),
    Mutant(
        "of a claim that is partly so the failures are not named",
        "papers/claims/verdict.py",
        '"partly": [PASSES, FAILS]',
        '"partly": [PASSES]',
        of("cards", "test_a_card_says_paper_here_and_why_and_folds_the_rest"),
    ),
    Mutant(
        "50 % power",
        "papers/claims/engine.py",
        "(1.96 + 0.84)",
        "1.96",
        of("rule", "test_seeds_that_would_decide_are_those_of_80_percent_power"),
    ),
    Mutant(
        "seeds that would decide by the spread that divides by n",
        "papers/claims/engine.py",
        "count**2 / free",
        "count",
        of("rule", "test_seeds_that_would_decide_are_those_of_80_percent_power"),
    ),
    Mutant(
        "W5 counts batch sizes whose high rates were not run",
        "papers/khritankov/claims.py",
        "of=runs[broke | (last >= most)]",
        "of=runs",
        of(
            "rule",
            "test_a_batch_size_whose_high_rates_were_not_run_has_no_boundary",
        ),
    ),
    Mutant(
        "a part rests on all networks that it was given",
        "papers/khritankov/claims.py",
        "best = best[above | (ratio <= least + 1e-9)].assign(above=above)",
        "best = best.assign(above=above)",
        of("rule", "test_a_part_rests_on_the_networks_that_enter_it"),
    ),
    Mutant(
        "one seed that did not train goes alone",
        "papers/claims/rows.py",
        "lost = np.array([cell in poor for cell in cells])",
        "pass",
        of("rule", "test_means_of_a_cell_are_of_all_its_seeds_or_of_none"),
    ),
    Mutant(
        "a grid with gaps will do",
        "papers/claims/rows.py",
        "if any(len(frozenset.intersection(*each)) >= rates for each in some):",
        "if True:",
        of("rule", "test_a_grid_has_every_crossing"),
    ),
    Mutant(
        "the largest run counts for the smallest",
        "papers/claims/rows.py",
        '(table["train_size"] * table["epochs"]).min()',
        '(table["train_size"] * table["epochs"]).max()',
        of("rule", "test_needs_are_of_the_smallest_run_and_the_poorest_cell"),
    ),
    Mutant(
        "seeds of one block are drawn apart",
        "papers/claims/draws.py",
        "paired = not networks and one_block(rows)",
        "paired = False",
        of("criteria", "test_seeds_are_paired_inside_one_block_only"),
    ),
    Mutant(
        "seeds of two blocks are paired",
        "papers/claims/draws.py",
        "return len(blocks) == len(seeds) and all(named for _, named in blocks)",
        "return all(named for _, named in blocks)",
        of("criteria", "test_seeds_are_paired_inside_one_block_only"),
    ),
    Mutant(
        "of each seed that is drawn one row counts",
        "papers/claims/draws.py",
        "np.add.at(each, at, mine)",
        "each[at] = mine",
        of("criteria", "test_seeds_are_paired_inside_one_block_only"),
    ),
    Mutant(
        "networks are not drawn anew",
        "papers/claims/draws.py",
        "if self._drawn is not None:",
        "if False:",
        judged("W1a"),
    ),
    Mutant(
        "W3 takes the worst cell for the best",
        "papers/khritankov/claims.py",
        "most - cells.at_best(part.column, _FGSM)",
        "most - cells[part.column].min(1)",
        judged("W3a"),
    ),
    Mutant(
        "W6 takes the better of two levels",
        "papers/khritankov/claims.py",
        "np.minimum.reduce(",
        "np.maximum.reduce(",
        judged("W6a"),
    ),
    Mutant(
        "S6 is judged on the strongest rows",
        "papers/wei/claims.py",
        "cells.over(part.column, trained) - sam",
        "cells[part.column][:, trained].max(1) - sam",
        judged("S6a"),
    ),
    Mutant(
        "S6 is judged on the weakest rows",
        "papers/wei/claims.py",
        "cells.over(part.column, trained) - sam",
        "cells[part.column][:, trained].min(1) - sam",
        judged("S6a"),
    ),
    Mutant(
        "S9 takes the mean of what methods lose",
        "papers/wei/claims.py",
        "(cells[before] - cells[after]).max(1)",
        "(cells[before] - cells[after]).mean(1)",
        judged("S9e"),
    ),
    Mutant(
        "S10 divides by n",
        "papers/wei/claims.py",
        ".var(ddof=1)",
        ".var(ddof=0)",
        judged("S10a"),
    ),
    Mutant(
        "D8 is compared with standard training",
        "papers/wang/claims.py",
        '"D8": ("dynamic", "curriculum")',
        '"D8": ("dynamic", "standard")',
        judged("D8a"),
    ),
    Mutant(
        "D6 takes one schedule for the other",
        "papers/wang/claims.py",
        '"D6b": ("weak-last", "standard")',
        '"D6b": ("weak-first", "standard")',
        judged("D6b"),
    ),
    Mutant(
        "H2 takes the spread for the ratio",
        "papers/kamath/claims.py",
        "means.max(1) / means.min(1)",
        "means.max(1) - means.min(1)",
        judged("H2a"),
    ),
    Mutant(
        "H9 takes a fall for a rise",
        "papers/kamath/claims.py",
        'sign = -1 if "is lower" in part.criterion else 1',
        "sign = 1",
        judged("H9b"),
    ),
    Mutant(
        "H11 is upside down",
        "papers/kamath/claims.py",
        "return (little / much)[:, 0]",
        "return (much / little)[:, 0]",
        judged("H11a"),
    ),
]
JUDGING += [
    Mutant(
        "N1 leaves out networks trained from logits",
        "papers/ours/claims.py",
        '.fillna(rows["fgsm_accuracy"])',
        "",
        of(
            "ours", "test_through_its_own_loss_or_through_logits_where_that_is_the_same"
        ),
    ),
    Mutant(
        "N1 takes the mean cell for the best",
        "papers/ours/claims.py",
        "return cells[column].max(1)",
        "return cells[column].mean(1)",
        of(
            "ours", "test_through_its_own_loss_or_through_logits_where_that_is_the_same"
        ),
    ),
    Mutant(
        "N2 counts networks that never reached the loss",
        "papers/ours/claims.py",
        'rows["stopped_epoch"].notna() & ',
        "",
        of(
            "ours", "test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell"
        ),
    ),
    Mutant(
        "N2 draws networks one by one",
        "papers/ours/claims.py",
        'table.groupby([*_CELL, "weight_decay"])',
        'table.groupby("key")',
        of(
            "ours", "test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell"
        ),
    ),
    Mutant(
        "N2 holds nothing fixed",
        "papers/ours/claims.py",
        'given = ["natural_accuracy"]',
        "given: list[str] = []",
        of(
            "ours", "test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell"
        ),
    ),
    Mutant(
        "N2 takes sharp for flat",
        "papers/ours/claims.py",
        "{c: -rows[c] for",
        "{c: rows[c] for",
        of(
            "ours", "test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell"
        ),
    ),
    Mutant(
        "N2's lead is that of the plain width",
        "papers/ours/claims.py",
        "found - rank(1)",
        "rank(1) - found",
        of(
            "ours", "test_flatness_without_scale_is_a_partial_correlation_drawn_by_cell"
        ),
    ),
    Mutant(
        "ranks are not freed of their mean",
        "papers/ours/claims.py",
        "table -= table.mean(1, keepdims=True)",
        "pass",
        of("ours", "test_partial_ranks_are_those_of_every_draw"),
    ),
    Mutant(
        "N3 takes a fall for no order",
        "papers/ours/claims.py",
        "return abs(rank) if",
        "return rank if",
        of(
            "ours",
            "test_the_boundary_has_the_size_of_a_correlation_and_the_scale_its_sign",
        ),
    ),
    Mutant(
        "N3 draws one batch size of each seed",
        "papers/ours/claims.py",
        'rows.cells(["batch_size"], name)',
        'rows.cells(["list"], name)',
        of("ours", "test_a_share_is_the_mean_over_batch_sizes_in_every_draw"),
    ),
    Mutant(
        "N4 is upside down",
        "papers/ours/claims.py",
        'line["rounding"] / line["seeds"]',
        'line["seeds"] / line["rounding"]',
        of("ours", "test_rounding_against_seeds_has_the_interval_of_f"),
    ),
    Mutant(
        "N4 takes one number of degrees of freedom for the other",
        "papers/ours/claims.py",
        'generator.f(free, line["n_rounding"] - 1, DRAWS)',
        'generator.f(line["n_rounding"] - 1, free, DRAWS)',
        of("ours", "test_rounding_against_seeds_has_the_interval_of_f"),
    ),
    Mutant(
        "N4 tells one mean from a constant",
        "papers/ours/claims.py",
        "(2 / 3) ** 0.5",
        "(1 / 3) ** 0.5",
        of("ours", "test_the_least_difference_is_that_of_two_arms_of_three_seeds"),
    ),
    Mutant(
        "N4 compares methods over rounding as well",
        "papers/ours/claims.py",
        'table = table[table["nudge"] == 0]',
        "table = table.copy()",
        of("ours", "test_methods_are_compared_over_seeds_and_not_over_rounding"),
    ),
    Mutant(
        "N5 takes the raw FOSC for that of the box",
        "papers/ours/claims.py",
        "names[1] if box else names[0]",
        "names[0]",
        of("ours", "test_a_certificate_is_judged_by_its_own_area"),
    ),
    Mutant(
        "N6 is ahead of the mean control",
        "papers/ours/claims.py",
        "[:, others].max(1)",
        "[:, others].mean(1)",
        of(
            "ours",
            "test_sam_is_compared_with_its_best_control_and_late_sam_with_its_gain",
        ),
    ),
    Mutant(
        "N6 takes all augmentations together",
        "papers/ours/claims.py",
        'table = table[table["augment"] == part.given["augment"]]',
        "pass",
        of(
            "ours",
            "test_sam_is_compared_with_its_best_control_and_late_sam_with_its_gain",
        ),
    ),
    Mutant(
        "the best of some arms is the best of all",
        "papers/ours/claims.py",
        'return rows["list"].nunique() == len(part.runs.split(" + "))',
        "return True",
        of(
            "ours",
            "test_sam_is_compared_with_its_best_control_and_late_sam_with_its_gain",
        ),
    ),
]
MUTANTS = {m.name: m for m in ATTACKS + TRAINING + MEASURING + JUDGING}


def copy(folder):
    """Copy what the tests need: the package and themselves; the rest is linked."""
    for name in ("widemin", "tests"):
        shutil.copytree(paths.ROOT / name, folder / name)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy2(paths.ROOT / name, folder)
    for name in ("book", "notebooks"):
        (folder / name).symlink_to(paths.ROOT / name)


def plant(folder, mutant):
    """Put a mutant's text in place of the old one, which must be there once."""
    place = folder / "widemin" / mutant.where
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    found = [path for path in files if mutant.old in path.read_text()]
    count = sum(path.read_text().count(mutant.old) for path in found)
    assert count == 1, (
        f"{mutant.old!r} stands {count} times in {mutant.where}, not once"
    )
    found[0].write_text(found[0].read_text().replace(mutant.old, mutant.new))


def run(folder, tests):
    """Return pytest's exit status, and the end of what it says, for tests in a copy."""
    process = FORKS.Process(target=planted.run_tests, args=(str(folder), list(tests)))
    process.start()
    process.join()
    return process.exitcode, (folder / "said").read_text()[-2_000:]


@pytest.fixture(scope="module")
def ends(request, tmp_path_factory):
    """Of each test chosen here its mutant's end, as many at once as there are cores."""
    names = [
        item.callspec.params.get("name")
        for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path
    ]

    base = tmp_path_factory.mktemp("mutants")

    def end(name):
        folder = base / str(names.index(name))
        folder.mkdir()
        copy(folder)
        plant(folder, MUTANTS[name])
        found = run(folder, MUTANTS[name].tests)
        shutil.rmtree(folder)
        return found

    with ThreadPoolExecutor(workers.cores()) as pool:
        yield {name: pool.submit(end, name) for name in names}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_does_not_live(name, ends):
    status, said = ends[name].result()
    assert status == pytest.ExitCode.TESTS_FAILED, said


def test_without_a_mutant_the_tests_pass(tmp_path):
    """They fail for the mutant and for nothing else, and are tests of the copy."""
    copy(tmp_path)
    tests = sorted({test for mutant in MUTANTS.values() for test in mutant.tests})
    status, said = run(tmp_path, tests)
    assert status == pytest.ExitCode.OK, said
