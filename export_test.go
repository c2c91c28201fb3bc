package midas

// What external tests reach inside for.
var SplitAppMeta = splitAppMeta

func ValidateItems(items []Item) error {
	req := OrderRequest{Player: Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}, GoodsName: "n", GoodsDescription: "d", Items: items}
	return req.validate(Sandbox())
}

// ReadOrderAnswer reads the body of an answer to an order.
func ReadOrderAnswer(body []byte) (token, urlParams string, refused *Error, wrong string) {
	var a orderAnswer
	refused, wrong = readAnswer(body, &a, func() []string { return nil })
	return a.Token, a.URLParams, refused, wrong
}

// SplitQuery returns a raw query's parameters in signing order.
func SplitQuery(rawQuery string, plus byte) (Params, error) { return splitQuery(rawQuery, plus) }

// Verify reports whether a raw query is verified, for a path that New would not take.
func Verify(rawQuery, path, appKey string) bool {
	c := &Client{cfg: Config{DeliveryPath: path}, keys: func() []string { return []string{appKey} }}
	_, _, err := c.verify(rawQuery)
	return err == nil
}
