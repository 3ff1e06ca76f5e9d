import io

from rich.console import Console

from subfour.cli.tables import print_table


def printed_table(columns: list[str], rows: list[list[object]], width: int = 80) -> list[str]:
    out = io.StringIO()
    print_table(Console(file=out, width=width, soft_wrap=True), "title", columns, rows)
    return out.getvalue().splitlines()


def test_numbers_are_aligned_right_and_words_left():
    assert printed_table(["name", "n"], [["a", 1], ["long name", 0.12345], ["b", None]]) == [
        "title",
        "name            n",
        "a               1",
        "long name  0.1235",
        "b",
    ]


def test_large_numbers_have_all_their_digits():
    assert [line.strip() for line in printed_table(["n"], [[11850.4], [999.96], [0.5]])[2:]] == [
        "11850",
        "1000",
        "0.5",
    ]


def test_a_row_is_one_line_however_narrow_the_terminal():
    row = ["word " * 30, 7]
    assert printed_table(["text", "n"], [row], width=20)[2] == f"{row[0]}  7"


def test_a_table_may_have_no_rows():
    assert printed_table(["a", "b"], []) == ["title", "a  b"]
