"""Every check of tests/mixing_proofs.py for every method; --full has twenty times the draws."""

import re
from typing import get_args

import pytest

from pretrain.config import Method
from tests.conftest import ROOT
from tests.mixing_proofs import CASES, CHECKS, table


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_proof(case, check, full):
    check(case, full)


def test_every_method_is_proven():
    assert {case.method for case in CASES} >= {*get_args(Method)} - {"none"}


def test_the_guide_has_the_table():
    text = (ROOT / "docs" / "mixing.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- proofs -->\n(.*?)\n<!-- /proofs -->", text, re.S)
    assert shown.strip() == table()
