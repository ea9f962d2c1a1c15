"""Who is told what: routes, escalations, and the rows that deliveries are made from."""
