"""What the launcher of the flex template runs."""

from vladmap.pipeline.flex_template import main

main()
