"""Apache Spark and Apache Flink by Beam's Java job servers: fetched, started, used, stopped."""
