"""`python -m keras_maskrcnn VERB`, also installed as `keras-maskrcnn`."""

import sys


def main():
    """Runs the verb and returns the exit code, 130 if Ctrl-C comes during the imports."""
    try:
        from keras_maskrcnn import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
