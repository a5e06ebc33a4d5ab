"""Object stores (s3://, gs://, az://) and images on the web; obstore is imported only when it is needed."""
