"""What people read of a run: the closing table, `summary.json`, `report.html`; and `crrl doctor`.

It reads the journal and the summary, and writes nothing that a resumed run needs. Text by an agent, a model or a task
is untrusted: it is escaped on its way to a terminal (`console.plain.clean`) or a page (Jinja's autoescape).
"""
