"""Every generated page and file, by path."""

from pathlib import Path

from dev.helm import CHART, ROOT
from dev.reference.dashboard import dashboard_json
from dev.reference.metrics import metrics_page
from dev.reference.settings import settings_page
from dev.reference.troubleshooting import troubleshooting_page
from dev.reference.values import values_page

REFERENCE = ROOT / "docs" / "reference"


def generated() -> dict[Path, str]:
    """Their texts: same code, same bytes."""
    return {
        REFERENCE / "metrics.md": metrics_page(),
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "values.md": values_page(),
        REFERENCE / "troubleshooting.md": troubleshooting_page(),
        CHART / "dashboards" / "modelswarm.json": dashboard_json(),
    }
