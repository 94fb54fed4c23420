"""`python -m keras_maskrcnn VERB`."""

import sys

from keras_maskrcnn.cli import main

sys.exit(main())
