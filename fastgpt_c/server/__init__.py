"""An HTTP server that speaks OpenAI's API, and the page that it serves.  Needs the extra fastgpt-c[serve]."""
