"""Reports: self-contained HTML files with charts and tables, and a verdict in words."""

from __future__ import annotations

from latlab.harness.report.data import Headline, ReportData
from latlab.harness.report.page import write_report

__all__ = ["Headline", "ReportData", "write_report"]
