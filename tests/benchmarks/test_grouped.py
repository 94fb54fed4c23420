"""`benchmarks/grouped.py`: forms of a grouped convolution agree and are timed."""


def test_forms_that_take_no_compilation(run_here):
    forms = ["kernels", "dense", "separate32", "shifts"]
    done = run_here("grouped", "--cases", 1, "--batch", 1, "--rounds", 1, "--forms", *forms)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| 64")]
    assert [row[1] for row in rows] == forms
    assert rows[0][2].endswith(" ms") and rows[1][2].endswith("×") and "differ" not in done.stdout
