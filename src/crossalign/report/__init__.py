"""One self-contained HTML page about one registration, to look at and to pass on."""

from crossalign.report.page import ReportInput, render_report, write_report

__all__ = ["ReportInput", "render_report", "write_report"]
