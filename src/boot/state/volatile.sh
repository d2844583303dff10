overlay etc var root home srv
accounts
protect
