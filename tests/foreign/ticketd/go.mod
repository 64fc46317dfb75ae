module coterie.test/foreign/ticketd

go 1.22
