"""The web view: a page that shows a running stack, and captures, and lets one act on the stack (docs/web.md).

security.py decides who may ask; app.py and session.py answer; live.py listens to the stack, layers.py asks its
processes, debugging.py stops it; capture.py and recorded.py open files; replay.py asks processes of their own, of which
stories.py is one, and measure.py runs another; packets.py keeps what was seen, views.py says what of it passes a
filter. The page itself lies in static/: HTML, CSS and ES modules as they are, without a build.
"""
