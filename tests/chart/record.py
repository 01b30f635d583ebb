"""Write what the chart renders for each case of tests/chart/cases into tests/chart/renders.

python tests/chart/record.py     then read the difference
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests_support import chart  # from tests/

for case in chart.cases():
    target = chart.RENDERS / f"{case}.yaml"
    target.write_text(chart.text(chart.values_of(case)), encoding="utf-8")
