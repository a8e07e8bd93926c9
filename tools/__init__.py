"""The command-line tools, one absl application in each module, which are installed as `daqu_tf.tools`."""
