"""Rules of `why`: each looks at one case and names what it finds, with the first wrong packet and the reasons."""
