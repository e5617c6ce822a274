"""Tables between markers."""

import pytest

from maml_rl.errors import InputError
from maml_rl.experiments.runs.pages import with_tables


def test_a_new_table_replaces_the_one_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- results_page: b -->\nold\n<!-- end -->\nc\n<!-- results_page: d -->\n<!-- end -->\n")
    text = with_tables(page, {"b": "| new |"})
    assert text == page.read_text().replace("old", "| new |")


def test_a_page_without_the_marker_of_a_table_is_refused(tmp_path):
    (tmp_path / "page.md").write_text("<!-- results_page: a -->\nold\n<!-- end -->\n")
    with pytest.raises(InputError, match="should have the lines <!-- results_page: b -->"):
        with_tables(tmp_path / "page.md", {"b": "new"})
