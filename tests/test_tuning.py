"""Variations of settings, as the command for tuning reads them."""

from pathlib import Path

import pytest

from benchmarks.tuning import studio, variation
from editor.engine import EFFORTS


def test_a_variation_changes_what_it_names_and_nothing_else():
    assert variation("fast") == EFFORTS["fast"]
    found = variation("balanced,guidance=0.5,lookahead=denoiser,temperature=null,jacobian=false")
    changed = {"guidance": 0.5, "lookahead": "denoiser", "temperature": None, "jacobian": False}
    assert found == EFFORTS["balanced"].but(**changed)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quick", "no effort 'quick'"),
        ("fast,guidence=1", "no setting 'guidence'"),
        ("fast,start=0.5", "no setting 'start'"),
        ("fast,guidance=strong", "guidance needs a number"),
        ("fast,guidance=-1", "guidance must be zero or more"),
        ("fast,noise", "noise needs a number"),
    ],
)
def test_a_wrong_variation_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        variation(text)


def test_another_judge_is_tried_in_the_studio_with_all_else_its_own():
    own, other = studio(None).models, studio(Path("elsewhere")).models
    assert (own.place.flow, own.hardware, own.profile) == (other.place.flow, other.hardware, other.profile)
    assert other.place.vlm == Path("elsewhere") != own.place.vlm
