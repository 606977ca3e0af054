"""The report of an atlas: plain tables in, a page that opens from disk out."""
