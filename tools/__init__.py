"""The command-line tools, one absl application a module; installed as `daqu_tf.tools`."""
