"""Object stores (s3://, gs://, az://) and images on the web. What needs obstore is imported when it is used."""
