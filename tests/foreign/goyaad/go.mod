module coterie.test/foreign/goyaad

go 1.22

require github.com/syndtr/goleveldb v1.0.0
