"""Sums are what they were: those of the demo model's first window and of three tiny families."""

import numpy as np
import pytest
from goldens.sums import FAMILIES, FILE, demo_sums, family_sums
from safetensors.numpy import load_file

ANOTHER_MACHINE = 3e-6
"""Relative: float32 products are added up in another order by other processors."""


@pytest.mark.parametrize("name", FAMILIES)
def test_all_plans_of_a_tiny_family(name):
    np.testing.assert_allclose(family_sums(name), load_file(FILE)[name], rtol=ANOTHER_MACHINE)


def test_all_plans_of_the_demo_model_on_its_first_window(tmp_path):
    found = demo_sums(tmp_path / "run", 1)
    stored = load_file(FILE)["demo"]
    np.testing.assert_allclose(found[:, 0], stored[:, 0], rtol=ANOTHER_MACHINE)
