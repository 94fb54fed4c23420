import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import table

README = f"# Title\n\n{table.BEGIN}\nold\n{table.END}\n\nThe end.\n"


def spread(median):
    return {"median": median, "lowest": median * 0.9, "highest": median * 1.25}


def case(name, ours=10.0, peer=40.0, unit="ms", **more):
    ratio = spread(peer / ours) if peer else None
    return {
        "case": name,
        "unit": unit,
        "ours": spread(ours),
        "peer": spread(peer) if peer else None,
        "ratio": ratio,
        "facts": {"ours": {}, "peer": {}},
        "memory_mb": {"ours": 800, "peer": 1000},
        **more,
    }


def report(name, *rows, **changes):
    return {
        "script": f"benchmarks/{name}.py",
        "command": f"python benchmarks/{name}.py --peer-python PATH",
        "date": "2026-11-05",
        "machine": "Some processor, 2 cores",
        "versions": {"ours": {"tensorflow": "2.21.0"}, "peer": {"torch": "2.13.0"}},
        "peer": "torchvision",
        "rows": list(rows),
        **changes,
    }


@pytest.fixture
def results(tmp_path):
    """Writes reports into a folder of results next to a README; returns both paths."""

    def write(*reports):
        folder, readme = tmp_path / "results", tmp_path / "README.md"
        folder.mkdir(exist_ok=True)
        for index, content in enumerate(reports):
            (folder / f"{index}.json").write_text(json.dumps(content))
        readme.write_text(README)
        return folder, readme

    return write


def run(folder, readme, *words):
    return table.main(["--results", str(folder), "--readme", str(readme), *words])


def lines_of(readme):
    return [line for line in readme.read_text().splitlines() if line.startswith("| `")]


def test_a_row_worked_by_hand(results):
    folder, readme = results(report("data_pipeline", case("all | of it")))
    assert run(folder, readme) == 0
    assert lines_of(readme) == [
        "| `data_pipeline` all \\| of it | 10.0 ms | 40.0 ms | 4.00× (3.60 … 5.00) |  | ≥ 1.5× (2.5×) | aim |"
    ]


def test_text_around_the_markers_is_kept_and_machine_and_date_are_written(results):
    folder, readme = results(report("nms", case("x")))
    run(folder, readme)
    text = readme.read_text()
    assert text.startswith(f"# Title\n\n{table.BEGIN}\n\nAgainst torchvision:\n") and "old" not in text
    assert text.endswith(f"\n\n{table.END}\n\nThe end.\n")
    assert "Machine: Some processor, 2 cores." in text
    assert "`benchmarks/nms.py`: 5 November 2026; ours: tensorflow 2.21.0; peer: torch 2.13.0." in text
    run(folder, readme)
    assert readme.read_text() == text


def test_check(results, capsys):
    folder, readme = results(report("nms", case("x")))
    assert run(folder, readme, "--check") == 1
    assert readme.read_text() == README and "differs from the results" in capsys.readouterr().out
    run(folder, readme)
    assert run(folder, readme, "--check") == 0
    (folder / "0.json").write_text(json.dumps(report("nms", case("x", ours=11.0))))
    assert run(folder, readme, "--check") == 1


def test_passes_over_images_have_a_time_per_image_and_a_rate(results):
    facts = {"ours": {"pictures": 200}, "peer": {"pictures": 200}}
    folder, readme = results(report("data_pipeline", case("x", ours=4.0, peer=10.0, unit="s", facts=facts)))
    run(folder, readme)
    assert "| 20.0 ms a picture, 50.0 images/s | 50.0 ms a picture, 20.0 images/s | 2.50×" in lines_of(readme)[0]


def test_cases_without_peer_appear_only_if_they_have_a_bar(results):
    alone = case("boxes of all sizes; exact", ours=61.0, peer=None)
    folder, readme = results(report("growth", case("x", peer=None)), report("paste", alone, peer=None))
    run(folder, readme)
    assert lines_of(readme) == ["| `paste` boxes of all sizes; exact | 61.0 ms |  |  |  | ≤ 60 ms | **no** |"]


def test_reports_of_another_kind_are_left_out(results):
    folder, readme = results({"script": "benchmarks/growth.py"})
    run(folder, readme)
    assert "Nothing has been measured yet." in readme.read_text()


def test_memory_is_compared_where_cases_have_processes_of_their_own(results, monkeypatch):
    monkeypatch.setitem(table.BARS, "inference", [("x", (table.Bar(5), table.MEMORY))])
    folder, readme = results(report("inference", case("x"), case("y")), report("nms", case("z")))
    run(folder, readme)
    first, second, third = lines_of(readme)
    assert first.endswith("| 0.80× | ≥ 5×; memory ≤ 1× (0.7×) | **no**; yes |")
    assert second.endswith("| 0.80× |  |  |")
    assert third.endswith("|  |  |  |")


def test_tables_by_peer_and_scripts_in_the_order_of_the_bars(results):
    garden = report("inference", case("z"), peer="Model Garden")
    folder, readme = results(report("another", case("c")), report("nms", case("b")), garden, report("nms", case("a")))
    run(folder, readme)
    assert [line.split(" |")[0] for line in lines_of(readme)] == [
        "| `inference` z",
        "| `nms` b",
        "| `nms` a",
        "| `another` c",
    ]
    assert readme.read_text().count("Against ") == 2


@pytest.mark.parametrize(
    ("bar", "values"),
    [
        (table.Bar(2, 3), {1.99: "**no**", 2.0: "yes", 3.0: "aim", None: "not measured"}),
        (table.Bar(1, 0.7, "memory"), {1.01: "**no**", 1.0: "yes", 0.7: "aim"}),
        (table.Bar(60, of="ms"), {60.1: "**no**", 60.0: "yes", 1.0: "yes"}),
    ],
)
def test_verdicts(bar, values):
    assert {value: bar.verdict(value) for value in values} == values


def test_bars_of_the_scripts_that_exist():
    from roi_align import KINDS, SIZES

    first = next(iter(SIZES))
    assert [table.bars("benchmarks/roi_align.py", f"{first}; {kind}; auto") for kind in KINDS] == [
        (table.Bar(4, 6),),
        (table.Bar(10, 18),),
    ]
    assert table.bars("benchmarks/roi_align.py", f"{first}; forward; gather") == ()
    assert table.bars("benchmarks/unknown.py", "x") == ()


def test_every_case_against_torchvision_in_whole_networks_has_a_bar():
    import peers

    for script in ("inference", "training"):
        for case in peers.cases(peers.PRECISIONS, "torchvision"):
            given_up = script == "training" and case.startswith("float32")  # docs/speed.md says why
            assert (table.MEMORY in table.bars(f"benchmarks/{script}.py", case)) != given_up


def test_without_results(results):
    folder, readme = results()
    run(folder, readme)
    assert "Nothing has been measured yet." in readme.read_text()


@pytest.mark.parametrize(
    ("content", "message"), [("{", "0.json is not valid JSON"), ("{}", "is not a report"), ("[]", "is not a report")]
)
def test_files_that_are_not_reports_give_an_error_of_one_line(results, capsys, content, message):
    folder, readme = results()
    (folder / "0.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        run(folder, readme)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_readme_without_markers(results, capsys):
    folder, readme = results(report("nms", case("x")))
    readme.write_text(f"{table.END}\n{table.BEGIN}\n")
    with pytest.raises(SystemExit, match="2"):
        run(folder, readme)
    assert "README.md needs the lines <!-- benchmarks: begin -->" in capsys.readouterr().err
    readme.unlink()
    with pytest.raises(SystemExit, match="2"):
        run(folder, readme)
    assert "README.md: No such file" in capsys.readouterr().err


def test_printed_without_a_readme(results, capsys):
    folder, _ = results(report("nms", case("x")))
    assert table.main(["--results", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("Against torchvision:")
