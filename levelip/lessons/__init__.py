"""The guided tour (`lvlip lesson`): ten lessons that a reader runs, each in a world of its own.

`N-NAME.md` is a lesson: its text with the commands that are carried out in it (source.py). `ways.py` and `world.py`
make the place in which that happens, `runner.py` carries it out, `terminal.py` and `page.py` show it: to a reader, or
as the page docs/tutorial/N-NAME.md.
"""
