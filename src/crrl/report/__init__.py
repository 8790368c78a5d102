"""What people look at: the live display, the closing table, `summary.json`, `report.html`, `crrl doctor`.

Reads the journal and the summary, writes nothing that a resume needs. All text that an agent, a model or a
task wrote is untrusted here: it is escaped before it reaches a terminal (`plain.clean`) or a page
(`html.escape`).
"""
