"""How long a process of the stack may take to answer a tool's question before it counts as silent.

A round of a busy one takes milliseconds, but on a busy machine it comes late. Most tools wait `ANSWER_S`; the others
say why they wait less or more. How long supervisord may take is levelip.cli.supervise's, and how long a program's calls
wait for a gateway that is away, levelip.client.session's. Seconds.
"""

ANSWER_S = 5.0
"""One question, of a command that has nothing better to do than to wait; several processes are asked at once."""
FAR_S = 3.0
"""A layer on another host: those are asked one after the other, each by way of a layer here."""
QUIET_S = 0.2
"""One that did not answer the last time, where it is asked again and again beside others."""
SCRAPE_S = 2.0
"""All processes, of a scrape: a scraper that is kept for longer than its own limit (Prometheus: 10 s, often set to
less) takes the whole stack for down, and a scrape is up to four questions."""
PAGE_S = 0.6
"""One of the questions that the web view puts each second: one process must not make the others look old."""
ADDON_S = 10.0
"""To load an addon or take it out: its own code, which is run then, has 2 s in each process."""
